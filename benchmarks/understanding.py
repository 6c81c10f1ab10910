"""How well `understand` reads human users: precision, recall and F1 of informs and requests on annotated dialogues.

    python benchmarks/understanding.py [--data FILE] [--world FOLDER] [--json OUT] [--errors N]

The data are MultiWOZ dialogues with acts for both sides; by default those in ``../shared/data`` beside the checkout.
Every user turn is read with the context of the annotated system turn before it: its domain, the first slot that it asks
for, the last entity that it names. What counts as right:

* informs are compared as (domain, slot, value), requests as (domain, slot), each at most once per turn; micro-averaged;
* values are compared in lower case, with times as HH:MM, "city centre" as "centre", number words as digits; names,
  foods, types and stations count as equal from a similarity of 90 of 100 (token set ratio for names, since annotators
  keep the user's shortened form: "ask" for "ask restaurant"), which also absorbs spelling;
* "no" and "dontcare" count as equal for parking and internet: annotators label "I don't need wifi" either way;
* not compared: acts that only raise a domain (value "none"), negations (the annotation has none), thanks and goodbyes,
  acts of other domains, and whole turns that are about another domain (taxi, police, hospital). All are counted below
  the table.

What no reader can reach here: the annotation is heuristic and lacks acts in 8 % of the user turns (all correct readings
there count as false), annotates "does it have parking?" now as an inform and now as a request (`understand` always says
request), gives "I need a hotel" the value type=hotel in about half of all cases (`understand` hardly ever does), and
writes down values that are only implied ("the same day").

The dialogues are split by a fixed shuffle of their ids: the rules were written while looking at the first half only
("development"); the second half ("check") is the figure to trust. Intervals: 95 % percentile bootstrap over dialogues,
1,000 draws, seed 0.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz

from ugst_env.dialogue.acts import DONTCARE
from ugst_env.dialogue.understanding import Context, Vocabulary, understand
from ugst_env.world.database import World
from ugst_env.world.ontology import BOOKABLE, INFORMABLE

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SLOTS = {
    "Area": "area", "Price": "pricerange", "Stars": "stars", "Type": "type", "Internet": "internet",
    "Parking": "parking",
    "Name": "name", "Food": "food", "Depart": "departure", "Dest": "destination", "Day": "day", "Arrive": "arriveBy",
    "Leave": "leaveAt", "Time": "time", "People": "people", "Stay": "stay", "Phone": "phone", "Post": "postcode",
    "Addr": "address", "Fee": "entrance fee", "Ref": "reference", "Ticket": "price", "Id": "trainID",
}  # fmt: skip
TRAIN_REQUESTS = {"Time": "duration", "Price": "price"}
SIMILAR = 90
DRAWS = 1000

Item = tuple[str, ...]


@dataclass
class Score:
    """Counts of right, wrong and missed items; `add` and `f1` make micro-averages."""

    right: int = 0
    predicted: int = 0
    gold: int = 0

    def add(self, other: Score) -> None:
        self.right += other.right
        self.predicted += other.predicted
        self.gold += other.gold

    @property
    def precision(self) -> float:
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (self.predicted + self.gold) if self.predicted + self.gold else 0.0


@dataclass
class Dialogue:
    """The scores of one dialogue, per kind of act and (domain, slot)."""

    id: str
    scores: dict[tuple[str, str, str], Score] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    turns: int = 0


def normalised(slot: str, value: str) -> str:
    """A value in the form in which values are compared."""
    value = re.sub(r"\s+", " ", value.lower().strip().replace("'", ""))
    if value in ("dont care", "do n't care", "any", "dontcare", "doesnt matter"):
        return DONTCARE
    if slot in ("time", "leaveAt", "arriveBy"):
        match = re.search(r"(\d{1,2})[:.](\d{2})", value)
        return f"{int(match[1]):02d}:{match[2]}" if match else value
    if slot == "area":
        return re.sub(r"^(?:city |town )?cent(?:re|er).*$", "centre", value)
    if slot in ("people", "stay", "stars"):
        words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
        return str(words.index(value)) if value in words else value
    if slot in ("internet", "parking"):
        return {"no": DONTCARE, "none": "yes", "free": "yes"}.get(value, value)
    if slot == "pricerange":
        return {"moderately": "moderate", "cheaper": "cheap", "cheapest": "cheap"}.get(value, value)
    return value


def same(one: Item, other: Item) -> bool:
    """Whether two items say the same: equal but for the spelling of names, foods, types and stations."""
    if one[:2] != other[:2]:
        return False
    if one == other:
        return True
    if one[1] == "name":
        return fuzz.token_set_ratio(one[2], other[2]) >= SIMILAR
    return one[1] in ("food", "departure", "destination", "type") and fuzz.ratio(one[2], other[2]) >= SIMILAR


def gold_acts(acts: Iterable[Sequence[str]], dropped: Counter[str]) -> tuple[list[Item], list[Item]]:
    """The informs and requests of an annotated user turn; what is left out is counted in `dropped`."""
    informs: list[Item] = []
    requests: list[Item] = []
    for act, name, value in acts:
        domain, _, kind = act.lower().partition("-")
        if domain not in INFORMABLE:
            dropped["acts of other domains or general"] += 1
        elif kind == "inform":
            slot = SLOTS.get(name)
            if slot is None or value.lower() in ("none", "?", ""):
                dropped["informs without a value"] += 1
            elif slot not in INFORMABLE[domain] and slot not in BOOKABLE[domain]:
                dropped["informs of a slot that the domain lacks"] += 1
            else:
                informs.append((domain, slot, normalised(slot, value)))
        elif kind == "request" and name in SLOTS:
            slot = TRAIN_REQUESTS.get(name, SLOTS[name]) if domain == "train" else SLOTS[name]
            if domain == "attraction" and slot == "pricerange":
                slot = "entrance fee"
            requests.append((domain, slot))
        else:
            dropped["other acts"] += 1
    return list(dict.fromkeys(informs)), list(dict.fromkeys(requests))


def domains_of(acts: Iterable[Sequence[str]]) -> list[str]:
    return [act.lower().partition("-")[0] for act, _, _ in acts]


def context_of(acts: Sequence[Sequence[str]], domain: str | None) -> Context:
    """The context that an annotated system turn leaves; `domain` is the one that the talk was in before it."""
    for found in domains_of(acts):
        if found in INFORMABLE:
            domain = found
    requested: tuple[str, str] | None = None
    offered: str | None = None
    for act, name, value in acts:
        where, _, kind = act.lower().partition("-")
        asked = domain if where == "booking" else where
        slot = SLOTS.get(name)
        if kind == "request" and requested is None and slot and asked in INFORMABLE:
            if slot in INFORMABLE[asked] or slot in BOOKABLE[asked]:
                requested = (asked, slot)
        if name in ("Name", "Id") and value.lower() != "none":
            offered = value
    return Context(domain, requested, offered)


def tally(dialogue: Dialogue, kind: str, gold: list[Item], predicted: list[Item]) -> None:
    """Count one turn's items of one kind into the dialogue."""
    left = list(gold)
    for item in predicted:
        score = dialogue.scores.setdefault((kind, item[0], item[1]), Score())
        score.predicted += 1
        match = next((g for g in left if same(item, g)), None)
        if match:
            left.remove(match)
            score.right += 1
    for item in gold:
        dialogue.scores.setdefault((kind, item[0], item[1]), Score()).gold += 1


def evaluate(
    data: Sequence[dict[str, Any]], vocabulary: Vocabulary, dropped: Counter[str]
) -> tuple[list[Dialogue], float]:
    """Score every dialogue. Also returns the mean time of one reading in milliseconds."""
    dialogues, spent, read = [], 0.0, 0
    for record in data:
        dialogue = Dialogue(str(record["id"]))
        domain: str | None = None
        context = Context()
        elsewhere = False
        for turn in record["turns"]:
            acts = turn["dialog_act"]
            known = [d for d in domains_of(acts) if d in INFORMABLE]
            other = any(d in ("taxi", "police", "hospital", "bus") for d in domains_of(acts))
            if turn["speaker"] != "user":
                context = context_of(acts, domain)
                domain, elsewhere = context.domain, other
                continue
            if other or elsewhere:
                dropped["turns about another domain"] += 1
                domain = known[-1] if known else domain
                continue
            informs, requests = gold_acts(acts, dropped)
            started = time.perf_counter()
            found = understand(turn["text"], vocabulary, context)
            spent += time.perf_counter() - started
            read += 1
            said: list[Item] = [
                (a.domain or "", a.slot, normalised(a.slot, a.value or ""))
                for a in found
                if a.kind == "inform" and a.slot
            ]
            asked: list[Item] = [(a.domain or "", a.slot or "") for a in found if a.kind == "request"]
            said, asked = list(dict.fromkeys(said)), list(dict.fromkeys(asked))
            tally(dialogue, "inform", informs, said)
            tally(dialogue, "request", requests, asked)
            dialogue.turns += 1
            wrong = [i for i in said if not any(same(i, g) for g in informs)] + [i for i in asked if i not in requests]
            missed = [g for g in informs if not any(same(g, i) for i in said)] + [g for g in requests if g not in asked]
            if wrong or missed:
                dialogue.errors.append(
                    f"{dialogue.id}  {turn['text']}\n    context {context.domain} {context.requested}"
                    + (f"\n    wrong  {wrong}" if wrong else "")
                    + (f"\n    missed {missed}" if missed else "")
                )
            domain = known[-1] if known else domain
        dialogues.append(dialogue)
    return dialogues, 1000 * spent / max(read, 1)


def total(dialogues: Iterable[Dialogue], kind: str, domain: str = "", slot: str = "") -> Score:
    """The summed counts of a kind of act, of one domain and slot where they are given."""
    score = Score()
    for dialogue in dialogues:
        for (k, d, s), part in dialogue.scores.items():
            if k == kind and (not domain or d == domain) and (not slot or s == slot):
                score.add(part)
    return score


def interval(dialogues: Sequence[Dialogue], kind: str, domain: str = "", slot: str = "") -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of F1 over dialogues."""
    parts = [total([dialogue], kind, domain, slot) for dialogue in dialogues]
    rng = random.Random(0)
    drawn = []
    for _ in range(DRAWS):
        right = size = 0
        for part in rng.choices(parts, k=len(parts)):
            right += part.right
            size += part.predicted + part.gold
        drawn.append(2 * right / size if size else 0.0)
    drawn.sort()
    return drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS) - 1]


def halves(dialogues: Sequence[Dialogue]) -> tuple[list[Dialogue], list[Dialogue]]:
    """The development half and the check half."""
    ids = sorted(dialogue.id for dialogue in dialogues)
    random.Random(0).shuffle(ids)
    first = set(ids[: len(ids) // 2])
    return [d for d in dialogues if d.id in first], [d for d in dialogues if d.id not in first]


def rows(dialogues: Sequence[Dialogue]) -> list[dict[str, Any]]:
    """The table: overall for all, development and check half; then per domain and slot for all."""
    development, check = halves(dialogues)
    found: list[dict[str, Any]] = []

    def row(part: Sequence[Dialogue], name: str, kind: str, domain: str = "", slot: str = "") -> None:
        score = total(part, kind, domain, slot)
        low, high = interval(part, kind, domain, slot)
        found.append(
            {"acts": kind, "of": name, "precision": score.precision, "recall": score.recall, "f1": score.f1,
             "low": low, "high": high, "support": score.gold, "predicted": score.predicted}
        )  # fmt: skip

    for kind in ("inform", "request"):
        row(dialogues, "all", kind)
        row(development, "development half", kind)
        row(check, "check half", kind)
    for kind in ("inform", "request"):
        for domain, slot in sorted({(d, s) for dialogue in dialogues for k, d, s in dialogue.scores if k == kind}):
            row(dialogues, f"{domain} {slot}", kind, domain, slot)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Precision, recall and F1 of the understanding of user utterances.")
    parser.add_argument("--data", type=Path, default=SHARED / "multiwoz_dialogues_80.json", help="annotated dialogues")
    parser.add_argument("--world", type=Path, default=SHARED / "multiwoz_db", help="folder of the MultiWOZ database")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--errors", type=int, default=0, metavar="N", help="list N turns that were read wrongly")
    parser.add_argument("--half", choices=("all", "development", "check"), default="all", help="whose errors to list")
    arguments = parser.parse_args()
    for path in (arguments.data, arguments.world):
        if not path.exists():
            sys.exit(f"{path} does not exist; give dialogues with --data and a MultiWOZ database folder with --world")
    data = json.loads(arguments.data.read_text(encoding="utf-8"))
    vocabulary = Vocabulary.from_world(World.from_multiwoz(arguments.world))
    dropped: Counter[str] = Counter()
    dialogues, milliseconds = evaluate(data, vocabulary, dropped)
    table = rows(dialogues)
    print(f"{'acts':<8} {'of':<26} {'P':>6} {'R':>6} {'F1':>6}  {'95 % interval':<15} {'support':>7} {'found':>6}")
    for line in table:
        print(
            f"{line['acts']:<8} {line['of']:<26} {line['precision']:6.3f} {line['recall']:6.3f} {line['f1']:6.3f}"
            f"  [{line['low']:.3f}, {line['high']:.3f}]  {line['support']:7d} {line['predicted']:6d}"
        )
    turns = sum(dialogue.turns for dialogue in dialogues)
    print(f"\n{len(dialogues)} dialogues, {turns} user turns compared, {milliseconds:.3f} ms a turn.")
    print("Not compared: " + "; ".join(f"{count} {what}" for what, count in sorted(dropped.items())) + ".")
    development, check = halves(dialogues)
    listed = {"all": dialogues, "development": development, "check": check}[arguments.half]
    for error in [error for dialogue in listed for error in dialogue.errors][: arguments.errors]:
        print(error)
    if arguments.json:
        figures = {"rows": table, "turns": turns, "ms_per_turn": milliseconds, "not_compared": dict(dropped)}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
