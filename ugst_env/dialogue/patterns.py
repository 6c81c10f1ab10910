"""The phrases of English that carry dialogue acts, as patterns over the normal form that `tokenize` makes.

Patterns that end in ``$`` are held against the text before a value, patterns that start with ``^`` against a clause or
the text behind a value.

``X_WORDS`` is the sign (a bit in `SIGNS`) of words one of which every match of the pattern ``X``, or of each of
several, holds, wherever in the text it is searched: a text without any of them need not be searched, and most are not.
"""

from __future__ import annotations

import functools
import operator
import re

# The signs of each word that has any.
SIGNS: dict[str, int] = {}


def _sign(words: str) -> int:
    """A new sign, one bit, that a text bears which holds any of these words."""
    sign = 1 << max(SIGNS.values(), default=0).bit_length()
    for word in words.split():
        SIGNS[word] = SIGNS.get(word, 0) | sign
    return sign


ONE = _sign("one")
COMMA = _sign(",")
BUT = _sign("but however")
DIGIT = re.compile(r"\d")
NUM = r"(\d{1,2}|one)"
PART_OF_DAY = r"(?: (?:in the |at |this |that )?(morning|afternoon|evening|night|tonight))?"
TIME = re.compile(
    # What a time begins with, before all the ways in which it goes on are tried.
    r"\b(?=[\dhqmno])(?:"
    r"(?P<h1>\d{1,2}):(?P<m1>\d\d)(?: (?P<ap1>am|pm)\b)?"
    r"|(?P<h2>\d{1,2})(?: o ?clock)? (?P<ap2>am|pm)\b"
    r"|(?P<h2b>\d{1,2}) (?P<m2b>[0-5]\d) (?P<ap2b>am|pm)\b"
    r"|(?P<rel>half|quarter|5|10|20|25)(?: minutes?)? (?P<dir>past|to) (?P<h3>\d{1,2})(?: (?P<ap3>am|pm)\b)?"
    r"|half (?P<h9>\d{1,2})(?: (?P<ap9>am|pm)\b)?"
    r"|(?P<h4>\d{1,2}) o ?clock"
    r"|(?P<noon>noon|midday|midnight)"
    r"|(?P<h6>[01]\d|2[0-3])(?P<m6>[0-5]\d)(?= (?:hours|hrs)\b)"
    r"|(?<=\bat )(?P<h5>\d{1,2}|one)(?: (?P<m5>[0-5]\d))?(?! (?:people|persons?|nights?|days?|stars?"
    r"|tickets?|pounds?|guests?|of|or more))\b"
    r"|(?:(?<=\bby )|(?<=\bafter )|(?<=\bbefore )|(?<=\baround )|(?<=\babout )|(?<=\bat )|(?<=\btill )"
    r"|(?<=\buntil )|(?<=earlier than )|(?<=later than ))"
    r"(?:(?P<h7>[01]\d|2[0-3])(?P<m7>[0-5]\d)|(?P<h8>\d{1,2}|one)(?: (?P<m8>[0-5]\d))?"
    r"(?! (?:people|persons?|nights?|days?|stars?|tickets?|pounds?|guests?|of|or more)\b))\b"
    r")" + PART_OF_DAY
)
BARE_TIME = re.compile(r"^(?:\w+ ){0,3}?(\d{1,2}|[01]\d[0-5]\d|2[0-3][0-5]\d|one)(?: ([0-5]\d))?\b" + PART_OF_DAY)

WHO = r"(?:people|persons?|guests?|adults|individuals|of us|diners|travell?ers|passengers|ppl|peoples)"
RELATIVE = (
    r"(?:wife|husband|partner|girlfriend|boyfriend|friend|mum|mom|mother|dad|father|son|daughter"
    r"|sister|brother|boss|colleague)"
)
PEOPLE = (
    (
        _sign(
            """people person persons guest guests adults individuals us diners traveller travellers traveler travelers
            passengers ppl peoples"""
        ),
        re.compile(rf"\b{NUM} (?:other |more )?{WHO}\b"),
    ),
    (
        _sign("party group family table team groups"),
        re.compile(
            rf"\b(?:party|group|family|table|team|groups) (?:of|for|size of|size is) (?:about |only "
            rf"|just )?{NUM}\b(?! (?:nights?|days?|stars?))"
        ),
    ),
    (_sign("ticket tickets seats"), re.compile(rf"\b{NUM} (?:train )?(?:tickets?|seats)\b")),
    (
        _sign("for"),
        re.compile(
            rf"\bfor (?:just |only |exactly |all )?(?:the )?{NUM}\b"
            r"(?! (?:nights?|days?|stars?|am|pm|o ?clock|pounds|hours?|minutes?|room|rooms|more|of (?!us)|that"
            r"|with|in the (?:north|south|east|west|cent)"
            r"|(?:nights?)|price|or))(?! :)"
        ),
    ),
    (
        _sign("us total our my altogether"),
        re.compile(
            rf"\b(?:there (?:will be|are|is)|we are|it is|will be|would be) (?:just |only )?{NUM} (?:of us"
            rf"|in total|in our|in my|altogether)\b"
        ),
    ),
)
ADULTS_AND_CHILDREN = re.compile(
    rf"\b{NUM} adults? (?:and |, |plus |with )+{NUM} (?:kids?|child|children|bab(?:y|ies)|teenagers?)\b"
)
ADULTS_AND_CHILDREN_WORDS = _sign("adult adults")
ONE_PERSON = re.compile(
    r"\b(?:just|only) (?:for )?(?:me|myself)\b|\bfor (?:me only|myself|me alone)\b|\bby myself\b"
    r"|\btravell?ing alone\b"
    r"|\b(?:a )?single (?:person|ticket|traveller|diner)\b|\bparty of one\b|\bi (?:will be"
    r"|am) (?:alone|dining alone|on my own)\b"
    r"|\bjust (?:a|the one) ticket\b"
)
ONE_PERSON_WORDS = _sign("just only myself alone single party own")
TWO_PEOPLE = re.compile(rf"\b(?:me|i) and my {RELATIVE}\b|\bmy {RELATIVE} and (?:i|me|myself)\b|\bboth of us\b")
STAY = (
    re.compile(rf"\b{NUM} (?:more )?nights?\b"),
    re.compile(rf"\b{NUM} days?\b(?! (?:before|after|ago|trip))"),
    re.compile(rf"\bstay(?:ing)? (?:for |of )?(?:just |only )?{NUM}\b(?! (?:people|persons?|guests?|stars?|of|am|pm))"),
)
STAY_WORDS = _sign("night nights day days stay staying")
TWO_PEOPLE_WORDS = _sign("my both")
STARS = (
    re.compile(r"\b(\d|one) stars?\b(?! hotels? in total)"),
    re.compile(
        r"\b(?:star rating|stars?|rating|rated)(?: (?:of|is|should be|at|needs to be|must be|be|to be"
        r"|as)){1,2} (?:a |at least )?(\d|one)\b"
    ),
    re.compile(r"\b(\d|one) (?:or more )?star\b"),
)
STARS_WORDS = _sign("star stars rating rated")
NEED_NOT = re.compile(
    r"(?:(?:not|never) (?:really |necessarily |even |actually |have to |going to )?(?:need|require"
    r"|want|care|matter|have to|include|bothered|concerned|necessary)|"
    r"without needing|no need) ?(?:to |for |about |a |any |the |it |have |include |that |has |free "
    r"|be |if |with |there |is |or |and |of |both |internet |wifi |wi fi |parking |\w+ing ){0,8}$"
)
NEEDLESS = re.compile(
    r"^(?: access| space| spot|s| facilities)?(?: (?:is|are|was) not (?:needed|required|necessary"
    r"|important|a (?:must|requirement|concern|priority))"
    r"| (?:needed|required|necessary)\b| does not matter| do not matter| is optional| is not something)"
)
WITHOUT = re.compile(
    r"\b(?:(?<!not do )(?<!never do )without|mustnt have|(?:do|does|did) not have|with no|no|has no"
    r"|not (?:have|offer|include|provide)) (?:any |a |free |the )?$"
)
NOT = re.compile(
    r"(?:(?<!why )(?<!if )(?<!or )(?<!can )\bnot|\bno|\bnever|\bneither|\bmustnt|\banything but|\banywhere but"
    r"|\beverything but|\bany but|\bexcept(?: for)?|\bother than|\binstead of"
    r"|\brather than|\bavoid(?:ing)?|\boutside(?: of)?|\baway from|\bhate|\bdislike|\bnothing)"
    r"(?: (?:in|on|a|an|the|too|very|so|really|that|all|super|overly|at|any|be|want|need|like|looking"
    r"|for|from|to|interested|something|somewhere|anything"
    r"|food|of|eat|care|going|restaurants?|located|have|one|ones|another|serving|serve|serves|is|part|side))*"
    r" ?$"
)
NOT_WORDS = _sign(
    """not no never neither mustnt but except other instead rather avoid avoiding outside away hate dislike
    nothing"""
)
NOT_ONLY = re.compile(r"\bnot (?:only|just|necessarily|sure|certain|clear|say no to|mind)\b")

DONTCARE = re.compile(
    r"\b(?:(?:do|does|did|would|really|is|are|am) not (?:really |particularly |actually |especially |at all )*"
    r"(?:care|mind|matter|have an? (?:specific |particular |strong |real |certain )?(?:preference|one"
    r"|area|price|\w+ preference|\w+)? ?(?:preference|in mind)"
    r"|have (?:any|much of a|specific|particular) (?:\w+ )?(?:preferences?|\w+ in mind)"
    r"|have preferences?|fussy|picky|bothered|prefer|concerned|important|particular|a concern"
    r"|an issue)"
    r"|no (?:particular |specific |real |strong |other )?(?:\w+ )?preferences?|not (?:too |very |that "
    r"|so |really |all that )*(?:picky|fussy|fussed|bothered|particular|important)"
    r"|nothing (?:in particular|specific)|no(?:ne)? in particular|up to you|your choice|you (?:choose|decide|pick)"
    r"|(?:i am|we are|am) (?:open|flexible|easy)|open to (?:any|all|anything|whatever)|surprise me"
    r"|no idea|makes no difference|whatever you"
    r"|(?:any|anything|anywhere|anytime|whatever|whichever|wherever|either|whenever)(?: of (?:them"
    r"|those|these))?(?: one)?"
    r"(?: (?:area|place|price|price range|type|day|time|food|cuisine|location|of town|part of town"
    r"|kind|type of food|kind of food|options?|part|range|star rating))?"
    r" (?:is|are|will|would|works?|do|does|should|can) ?(?:be |do |is )?(?:fine|ok|okay|good|great"
    r"|work|works|do|alright|all right|acceptable|suffice|for me)?"
    r"|dont care|dontcare|do not have one)\b"
)
DONTCARE_WORDS = _sign(
    """not no none nothing up choice choose decide pick open flexible easy surprise any anything anywhere anytime
    whatever whichever wherever either whenever dont dontcare"""
)
ANY_SLOT = re.compile(r"\bany (?:particular |kind of |type of |old )?$")
ANY_ALONE = re.compile(
    r"^(?:oh |um |well |hmm |just |i guess |maybe )*(?:any|anything|anywhere|anytime|any time|any day"
    r"|any area|whatever|whichever|either|any kind|any type|any of them|any one)"
    r"(?: (?:is fine|will do|works|please|at all|really|one|of them|would do|is good|is ok|is okay))*$"
)
NO_ALONE = re.compile(
    r"^(?:no|nope|nah|not really|none|no thanks|no thank you|no not really|no i do not"
    r"|not at the moment|no particular)(?: (?:sir|please|not really))?$"
)
MAKES_OFFER_QUESTION = re.compile(
    r"^(?:also |and |so |but |yes |ok |okay |great |thanks |hi |hello |well |then )*(?:are there"
    r"|is there|do you have|have you got|does (?:the city|cambridge|town) have|are any)\b"
)
YES_NO = re.compile(
    r"\b(?:does|do|did|is|are|will|would|has|have|can) (?:it|they|this|that|these|those|both|either"
    r"|one|the|he|she|there|any)(?: (?:of (?:them|those|these)|hotels?|restaurants?"
    r"|places?|attractions?|guest ?houses?|guesthouses?|trains?|one|ones|rooms?|museums?|colleges?))?\b"
)
IS_THERE = re.compile(r"\b(?:is|are|will) there\b")
ASK = re.compile(
    r"\b(?:what|which|where|when|how|whats|tell me|give me|get me|send me|provide|need to know"
    r"|want to know|like to know|know|confirm|could i (?:get|have)|can i (?:also |please "
    r"|just )*(?:get|have|ask)"
    r"|may i (?:also |please )*(?:get|have)|could you (?:give|get|tell|provide|send)|can you (?:give"
    r"|get|tell|provide|send)|i (?:will |would |also |just |only |do |might |still )*(?:need|want|like"
    r"|require)"
    r"|(?:please )?(?:include|including|along with|as well as|let me know|information on|find out"
    r"|check|look up|get the|have the|get its|get their|have their|get your|remind me)|looking for the"
    r"|curious|wondering|just the|list|need)\b"
)
DESIRE = re.compile(
    r"\b(?:need|want|require|could do with|on the lookout"
    r"|looking|look|like|find|search|searching|book|recommend|suggest|get|interested"
    r"|help|love|prefer|after|trying|hoping|seeking|reserve|plan|planning|anything|any|some|is there"
    r"|are there|what about|how about|visit|know|have)\b"
)
REFERENCE_NOUN = re.compile(
    r"\b(?:near|close to|nearby|between|to|from|as|than|with|around|by|and|before|after) (?:the|our|my"
    r"|that|this|your|his|her)(?: same| first)? $"
)

SOFT_RIGHT = re.compile(
    r"\b(?:ideally|preferably|preferrably|hopefully|if possible|would be (?:nice|lovely|ideal|a plus"
    r"|a bonus)|i would rather|would rather|(?:would )?prefer|preference (?:is|would be)"
    r"|if you can|if i can|maybe|perhaps|nice to have|a bonus|if it is not too much|if available)\b"
)
SOFT_RIGHT_WORDS = _sign(
    """ideally preferably preferrably hopefully if nice lovely ideal plus bonus rather prefer preference maybe
    perhaps"""
)
SOFT_LEFT_ONLY = re.compile(
    r"if (?:possible|available|you can|i can)|would be (?:nice|lovely|ideal|a plus|a bonus)|nice to have|a bonus"
)
SOFT_AFTER = re.compile(rf"[ ,]*(?:please[ ,]*)?(?:{SOFT_RIGHT.pattern})(?:[ ,]*please)? ?(?:[,.!?]|$)")
SOFT_BEFORE = re.compile(rf"(?:{SOFT_RIGHT.pattern}) ?, ?$")
CORRECTION = re.compile(
    r"\b(?:no wait|wait no|wait|i mean|i meant|sorry|scratch that|make that|correction|or rather)\b"
)

YOU_SAID = re.compile(
    r"\byou (?:just |have |already )*(?:said|told|mentioned|gave|booked|offered|suggested|recommended|found|picked)\b"
)
YOU_SAID_WORDS = _sign("said told mentioned gave booked offered suggested recommended found picked")
CHANGE = re.compile(r"\b(?:change|switch|move|reschedule|changing|switching|moving)\b[^.?!;]{0,30} from (?:the )?$")
# Of both of them.
CORRECTION_WORDS = _sign(
    """wait mean meant sorry scratch make correction rather
    change switch move reschedule changing switching moving"""
)

BOOK = re.compile(
    r"\b(?:(?P<v>book|reserve|booked|reserved)|(?P<n>(?:make|have|get|need|want|like|like to have|do"
    r"|place|set up|making) (?:a |the |that |my |this )?(?:new )?(?:booking|reservation)s?)"
    r"|i will take (?:it|that|this|the|one|them)"
    r"|(?P<t>(?:need|want|like|get|buy|purchase|have|take) (?:me |us |about |just |only |to (?:buy"
    r"|purchase|get) )?(?:\d{1,2}|one|some|a|the|my|our) (?:train )?tickets?(?! (?:price|cost|fare"
    r"|office)))|booking for|reservation for)\b"
)
BOOK_WORDS = _sign("""book booked reserve reserved booking bookings reservation reservations take ticket tickets""")
NOT_WISH = re.compile(
    r"\b(?:not|never|no|once|before|already|until|after|did you|have you|had|you have|was|were"
    r"|has been|been|when you|if you|i have|is it|you just|to be) (?:\w+ ){0,4}$"
)

INTERJECTION = re.compile(r"^(?:(?:hmm+|oh|um|uh|well|ah|sorry|actually) [,.!?] )+")
THANKS = _sign("thank thanks thx thankyou cheers appreciate ty grateful")
GOODBYE = re.compile(
    r"\b(?:good ?bye|bye|byebye|see you|see ya|farewell|take care|cya"
    r"|(?<!do you )(?<!they )(?<!\bi )have an? (?:very |really )?"
    r"(?:good|great|nice|lovely|wonderful|pleasant|fantastic|amazing|awesome|blessed|fine)"
    r" (?:rest of (?:the|your) )?(?:day|evening|night|one|weekend|week|time|stay|afternoon|morning)"
    r"|good night|end (?:the|this) (?:chat|conversation|call)|enjoy your day|until next time|talk to you later)\b"
)
GOODBYE_WORDS = _sign("goodbye good bye byebye see farewell care cya have end enjoy until talk")
ALL_DONE = re.compile(
    r"\b(?:(?:that|this|it|those|which)(?: is| was| will be| would be| should be| are"
    r"| covers| does| ought to be| concludes)(?: about| pretty much| really| actually)? (?:all"
    r"|everything|it)\b"
    r"(?! (?:i know|you|right|good|depends|the|correct|sounds|okay|is))|all set|nothing (?:else|more"
    r"|further)|all done|(?:i am|we are) (?:done|finished|sorted|good(?= [.!,]|$| thank| for now| bye))"
    r"|(?:do|will|would) not (?:think i )?(?:need|require|want) (?:anything|any more|any further"
    r"|any other|further|any additional) ?(?:else|help|information|assistance|more|things?)?"
    r"|no more (?:questions|help)|no further|have (?:everything|all (?:of )?(?:the|that"
    r"|my)? ?(?:info\w*|i)|all i)|covered everything|(?:that|this) (?:should|will|would) do(?: it)?\b"
    r"|that does it|no that is fine"
    r"|not (?:at the moment|right now|today|for now)$|you have been (?:very |so |really |extremely "
    r"|most )?(?:helpful|a great help|a big help)|everything i need\w*|all i need\w*|all i wanted)"
)
ALL_DONE_WORDS = _sign("all am are been covered do does everything good have it no not nothing")
GREET = re.compile(r"^(?:hi|hello|hey|hiya|greetings|good (?:morning|afternoon|evening|day)|howdy|yo|hallo)\b")
AFFIRM = re.compile(
    r"^(?:oh |um |well |hmm |great |perfect |thanks |thank you )*(?:yes|yeah|yep|yup|ya|sure|ok|okay"
    r"|absolutely|definitely|certainly|of course|correct|right|alright|exactly|indeed|yea|please do"
    r"|go ahead|why not|fine|perfect|great|excellent|wonderful|awesome|lovely|nice|good|all right"
    r"|sounds|sound)\b"
    r"|\b(?:that|it|this|which|either|one|all|everything)(?: one| train| time| day| hotel"
    r"| place)? (?:sounds?|works?|will work|would work|is|will be|would be|looks?|should be"
    r"|seems) (?:for me |really |very |just |absolutely |like it |totally )*(?:fine|great|good|perfect"
    r"|ok|okay|lovely|wonderful|excellent|works?|acceptable|right|correct|nice|awesome|ideal)\b"
    r"|\b(?:that|it|this|which|one|train|time|day|that will|it will|this will) (?:works?|will do)\b"
    r"|\b(?:lets|let us|let is) (?:go with|do|book|take)\b|\bi will take\b|\bplease do\b|\bgo ahead\b"
    r"|\byes please\b|\bsounds (?:good|great|perfect|lovely|wonderful|fine)\b"
)
AFFIRM_WORDS = _sign(
    """yes yeah yep yup ya sure ok okay absolutely definitely certainly course correct right alright exactly indeed yea
    do ahead why fine perfect great excellent wonderful awesome lovely nice good sounds sound work works acceptable
    ideal let lets take"""
)
YES = re.compile(r"(?:\w+ ){0,2}(?:yes|yeah|yep|yup|sure|ok|okay|absolutely|definitely|please do)\b")
DENY = re.compile(
    r"^(?:oh |um |well |hmm |actually |sorry )*(?:no|nope|nah|not (?:right now|now|yet|really|today"
    r"|at the moment|at this time|quite|interested|that)|negative|never mind|nevermind)\b"
    r"(?=$| (?:thanks?|thank|sorry|please|i|that|thats|not|it|we|just|can|could|the|maybe|but|what"
    r"|lets|let|do|does|there|this|nothing|actually|sir|you|no|really)\b)(?! no (?:problem|worries))"
    r"|\bthat is not (?:necessary|right|correct|what|it|needed)\b|\bno thanks\b|\bno thank you\b"
    r"|\bthat is (?:wrong|incorrect)\b|\b(?:does|will|would) not (?:work|fit|suit)\b|\bno need (?:to"
    r"|for)\b|\bnot (?:need|want) (?:to (?:book|reserve|make)|an? (?:booking|reservation))"
)
DENY_WORDS = _sign("no nope nah not negative never nevermind wrong incorrect")
# What stands before the name of a slot that is not asked for, or that is known already.
NOT_NEEDED = re.compile(
    r"\b(?:not|no) (?:need|want|require|necessary)?(?: (?:the|a|an|any|your|their|its|to|for|have|know))* ?$"
)
MINE = re.compile(r"\bmy $")
HAS_IT = re.compile(r"\b(?:with|under|using|for|has|my|had) (?:the |that |this )?$")
# "How expensive is it" and "a cheap ticket" tell no price range, and who fancies some fish wants fish.
HOW = re.compile(r"\bhow (?:very |really )?$")
FANCY = re.compile(
    r"fancy (?:some|an?|any|the|something|eating|going|having|staying|trying|visiting)\b(?! \w+ (?:place|one)\b)"
)
FARE = re.compile(r" (?:train|ticket|fare)")
CALLED = re.compile(r"\b(?:called|named|name is|by the name of|name of|name)(?: is)? (?:the )?$")
TIME_NOUN = re.compile(r"^ (?:train|one|departure|arrival|will be fine|sounds|works|is fine|please)\b")
LEAVE = r"(?:leav\w+|depart\w*|set(?:ting)? off|go(?:ing)? out|after|later than|start\w*|head\w* out|earliest)"
ARRIVE = (
    r"(?:arriv\w*|arival|get (?:me |us )?(?:there|to|in|into|here|back)|gets (?:me |us )?(?:there|to"
    r"|in|into)|getting (?:there|to|in)|be (?:there|in|at|here)|reach\w*|make it|before|by|no later"
    r"|latest|need to be)"
)
VERB_OF_TIME = re.compile(rf"\b(?:(?P<leave>{LEAVE})|(?P<arrive>{ARRIVE}))\b")
NOT_BEFORE = re.compile(
    r"\b(?:not|no|nothing|none|never)(?: (?:leave|depart|go|travel|start|set off|get away|to leave|any"
    r"|want to leave))?(?: earlier than| before| until| till) $"
)
# A bare answer, which only the question for it explains.
ANSWER = re.compile(
    r"^(?:\w+ ,? ?)?(?:(?:it|that|this) (?:is|will be|would be)(?: from| at)?|(?:lets )?go for|make (?:it|that)) $"
)
FROM = re.compile(
    r"(?:\b(?:get|gets|got|getting|hop|hopping) on (?:at|in)|\bboard(?:ing)? (?:it |the train )?(?:at|in)"
    r"|\b(?:from|out of|leaving|leave|leaves|departing|depart|departs|departure|origin|between"
    r"|starting in|starting at|start in|departure (?:location|point|place|site|city|station"
    r"|town) (?:is|will be|would be|of)|departure is)(?: from)?(?: the)?(?: (?:at|in))?) $"
)
LEAVES_FOR = re.compile(r"\bleav(?:ing|e) for $|\bbound for $|\bhead(?:ing|ed) (?:for|to) $|\bfor $")
TO = re.compile(
    r"(?:\b(?:to|into|towards|toward|destination|reach|reaching|visit|destination (?:is|will be"
    r"|would be|of)|destination should be|bound for|headed for|heading for|leaving for|leave for"
    r"|(?:arriv\w*|get|gets|getting|be|being|end up|ending)(?: (?:there|me|us|back|here))?(?: in| at"
    r"| into| to)?|going|ending (?:in|at)|go)(?: the)?) $"
)
ARRIVE_IN = re.compile(r"\b(?:arriv\w*|get|be|going|travel\w*)\b[^.?!;]{0,30}\b(?:in|at) $")
FROM_FAR = re.compile(r"\b(?:leav\w*|depart\w*|from|starting)\b[^.?!;]{0,20} (?:in|at|is|be) $")
TRAIN_TALK = re.compile(r"\b(?:train\w*|ticket\w*|depart\w*|travel\w*|arriv\w*|leav\w*|commut\w*|journey|ride|rail)\b")
HOTEL_TYPE = re.compile(
    r"\b(?:hotel (?:type|style)|type (?:of |is |should be |to be |being |needs to be )*(?:a )?hotels?"
    r"|(?:actual|proper|real|regular|normal|type|rather a) hotels?|hotels? (?:rather than|instead of"
    r"|not)(?: a| an)? guest"
    r"|(?:should|must|has to|needs to|to|better) be a(?:n)? (?:\w+ )?hotel|hotels? not (?:a )?(?:guest|bed)"
    r"|(?:prefer|rather have) (?:a |an )?(?:\w+ )?hotel\b|make (?:it|that) an? hotel\b|hotel instead)"
)
A_HOTEL = re.compile(
    r"(?:^|[.?!;,] )(?:i (?:want|would like|prefer|would prefer|would rather have) )?(?:(?:preferably"
    r"|ideally) )?(?:i (?:want|would like) )?(?:to stay (?:in"
    r"|at) )?an? hotel(?:(?: ,)?(?: please)? ?(?:[.!,]|$)| would (?:be|do|suit)\b)"
)
ASKS_TYPE = re.compile(r"\b(?:what|which|tell|provide|give|know|confirm|the) ")
ADDRESS = re.compile(
    r"\bwhere (?:is|are|exactly is) (?:it|they|that|this|the \w+)(?: \w+){0,3}$|\bwhere (?:it|they"
    r"|that) (?:is|are)\b|\bwhere (?:is|are) (?:it|they|that) located\b|\b(?:what|which) street\b"
    r"|\bwhere (?:do|can|could|will|would) (?:i|we) find (?:it|them|that)\b"
)
ADDRESS_WORDS = _sign("where street")
# Slot, the sign of words one of which every match holds, pattern.
QUESTIONS = (
    (
        "leaveAt",
        _sign("when time"),
        re.compile(
            r"\b(?:what time|(?<!day is )when|time) (?:does|do|is|will|would|should|did|can)? ?(?:(?:it|the train|that"
            r"|this|they|that train|this train|i|the first one|tr\d+|the \w+ train|train|each"
            r"|one)\b(?: \w+)? ?(?:be )?)?(?:leav\w*|depart\w*|sets? off)"
        ),
    ),
    (
        "arriveBy",
        _sign("when time"),
        re.compile(
            r"\b(?:what time|(?<!day is )when|time) (?:does|do|is|will|would|should|did|can)? ?(?:(?:it|the train|that"
            r"|this|they|that train|this train|i|we|the first one|tr\d+|the \w+ train|train|each"
            r"|one)\b(?: \w+)? ?(?:be )?)?(?:arriv\w*|get (?:there|to|in)|gets (?:there|to|in)|reach)"
        ),
    ),
    (
        "entrance fee",
        _sign("free pay pays cost costs charge charges"),
        re.compile(
            r"\bis (?:it|entry|admission|entrance|the entrance) free\b(?! (?:on|in|at|then))|\bdo (?:i|we"
            r"|you) (?:have to|need to) pay (?:to|for) (?:get|ent)"
            r"|\b(?:cost|charge|pay)s? (?:\w+ )?(?:to|for) (?:get(?:ting)?|go(?:ing)?) in\b"
        ),
    ),
    (
        "phone",
        _sign("number"),
        re.compile(
            r"\b(?:what|which) number (?:do|can|could|should|shall|would) (?:i|we) (?:call|ring|dial|phone|use)\b"
            r"|\bnumber (?:that )?(?:to|i can|we can) (?:call|ring|dial|phone|reach)\b"
        ),
    ),
    ("parking", _sign("park"), re.compile(r"\b(?:can|could|may) (?:i|we) park\b")),
    (
        "duration",
        _sign("how"),
        re.compile(r"\bhow (?:long|much time|many (?:minutes|hours))\b(?! (?:will|is|are|do) (?:you|i) stay)"),
    ),
    (
        "stars",
        _sign("stars rating rated"),
        re.compile(r"\bhow many stars\b|\bwhat is (?:its|the|their) (?:star )?rating\b|\bwhat is it rated\b"),
    ),
    (
        "food",
        _sign("what which"),
        re.compile(
            r"\b(?:what|which) (?:(?:kind|type|sort)s? )?(?:of )?(?:foods?|cuisines?|dishes|cooking)\b"
            r"|\bwhat (?:do they|does it) serve\b"
        ),
    ),
    (
        "area",
        _sign("area part side location end whereabouts"),
        re.compile(
            r"\b(?:what|which) (?:area|part of|side of|part|location|end of)\b"
            r"|\bwhereabouts in (?:the )?(?:town|city)\b"
        ),
    ),
    (
        "price",
        _sign("how cost price prices fare set"),
        re.compile(
            r"\bhow (?:much|expensive|pricey)\b(?! (?:time|longer))|\bwhat (?:does|do|will|would) (?:it|they"
            r"|that|the ticket|a ticket|this|tickets) cost\b|\bwhat (?:is|are) the (?:cost|prices?|fare)\b"
            r"|\bset (?:me|us) back\b"
        ),
    ),
)
ANY_QUESTION = functools.reduce(operator.or_, (sign for _, sign, _ in QUESTIONS))
SENTENCE_END = re.compile(r"[.?!;]")
SEGMENT_MARK = re.compile(r"[.?!;,]")
SEGMENT_END = re.compile(r"[.?!;,]|(?<!thing)(?<!where)(?<!any) but | however ")
# What a hotel has or not, asked in a whole question ("is wifi included?", "will I get wifi?").
ASKS_FACILITY = re.compile(
    r"^(?:(?:and|so|also|oh|well|right|hi|hello) ,? ?)*"
    r"(?:(?:is|are)(?: the| there)?|any|(?:will|would|do|can) (?:i|we) (?:get|have))(?: free)? $"
)
PLACE_ROLE = re.compile(
    r"^ is where (?:i|we)(?: am| are| will be| want to| would)?(?: be)? (?:(?P<to>going|headed|heading|go|travelling"
    r"|off to)|(?P<from>start\w*|leav\w+|depart\w*|set(?:ting)? off|get(?:ting)? on|board\w*))\b"
)
# The words of somebody who serves others.
AS_CLERK = re.compile(
    r"\b(?:i|we) (?:can|could|will|would|am|are|would be|will be) (?:\w+ ){0,3}?(?:help|helping|assist|assisting) you\b"
    r"|\bhow (?:can|may) (?:i|we) help you\b"
)
AS_CLERK_WORDS = _sign("help helping assist assisting")
