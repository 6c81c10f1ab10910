"""Write the shipped city, Quillminster, anew: ``python -m ugst_env.world.build_city``.

Quillminster is an invented cathedral town on an invented river. Names and cuisines are written by hand; where things
stand, what they cost and when trains run is drawn from one seed, so the files come out the same each time. The postcode
area QM is not in use, and the telephone numbers are from the range that the British regulator keeps for fiction.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from ugst_env.world.database import SLOTS, clock
from ugst_env.world.ontology import AREAS, DAYS, PRICERANGES

CITY = "quillminster"
SEED = 1303

STREETS = {
    "centre": (
        "minster yard", "quill row", "tallowgate", "shambleway", "bellhanger street", "corn staithe", "chandler row",
    ),
    "north": ("fennimore road", "lockhouse lane", "priorsgate", "tannery rise", "hollin drive"),
    "east": ("weir street", "osier walk", "maltkiln road", "barrowmere avenue", "ferryman close"),
    "south": ("almoner road", "glebe terrace", "cinder lane", "wharfinger street", "larkhanger way"),
    "west": ("abbot causeway", "dovecote road", "ropemaker street", "quarry bank", "thornfold crescent"),
}  # fmt: skip

HOTELS = (
    "ambrose tallow house", "the gilded heron hotel", "bramblecote guest house", "canon's lodging", "the osier inn",
    "dunmarrow lodge", "the ferryman's rest", "fennimore grange", "the lantern weir hotel", "hollinside guest house",
    "kittiwake lodge", "the larkhanger hotel", "lockkeeper's cottage", "maltkiln house", "marchpane villa",
    "the minster arms", "netherby manor", "old tannery lofts", "the oxbow hotel", "pennyroyal guest house",
    "priorsgate house", "the quillmaker's hotel", "ravelin court", "rosamund bed and breakfast", "saddler's yard",
    "samphire house", "the salt staithes", "sorrel bank guest house", "tallowgate hotel", "the teasel and wren",
    "thornfold lodge", "vesper hall", "wharfinger house", "willoughby bed and breakfast", "yaffle cottage",
)  # fmt: skip

RESTAURANTS = {
    "american": ("big earl's smokehouse", "cactus jim diner", "maplewood burger hall", "roadrunner grill"),
    "asian fusion": ("lotus and ember", "the paper crane"),
    "brazilian": ("churrasco do vale", "ipanema grill"),
    "british": (
        "bellhanger chop house", "the brass partridge", "clementine's pantry", "the crooked ladle",
        "dovecote kitchen", "the minster larder", "old wharf pie room", "the thirsty canon",
    ),
    "caribbean": ("calypso cookshop", "mama delphine's", "scotch bonnet shack"),
    "chinese": (
        "bamboo lantern", "dragon staithe", "emperor wu", "golden carp garden", "jade pagoda", "mandarin court",
        "szechuan lane",
    ),
    "ethiopian": ("abyssinia table", "addis hearth", "teff and berbere"),
    "french": (
        "au petit moulin", "brasserie margaux", "chez odile", "la grenouille verte", "le canard boiteux",
        "maison duvivier",
    ),
    "greek": ("athena's olive grove", "knossos taverna", "mythos meze", "spiro's", "the blue amphora"),
    "indian": (
        "bengal lancer", "cardamom court", "jaipur jewel", "monsoon tiffin", "rani's kitchen",
        "saffron elephant", "tamarind tree", "the raj pavilion",
    ),
    "italian": (
        "da benedetta", "il gatto rosso", "la lanterna", "osteria del ponte", "pizzeria vesuvia",
        "ristorante colombo", "tavola nonna pia", "trattoria fiorella", "villa amaranto",
    ),
    "japanese": ("hanami sushi bar", "izakaya kumo", "kappa ramen", "mori teppan", "sakura bento", "tanuki"),
    "korean": ("gangnam grill house", "hanok", "kimchi corner", "seoul bibimbap"),
    "lebanese": ("beit zaytoun", "cedar and sumac", "fairouz", "levant mezze"),
    "mexican": ("casa chiquita", "el burro azul", "la cantina lupita", "taqueria ocho", "tia rosa"),
    "polish": ("babcia's pierogi", "karczma wawel"),
    "portuguese": ("casa do bacalhau", "lisboa tasca", "piri piri palace"),
    "seafood": ("captain rudd's", "the crab and anchor", "the limpet", "oyster quay", "salt and samphire"),
    "spanish": ("bodega alonso", "casa ramona", "el olivo", "la paella roja", "tapas cordoba"),
    "thai": ("bangkok orchid", "chao phraya spoon", "lemongrass house", "siam lily", "tuk tuk canteen"),
    "turkish": ("anatolian hearth", "bosphorus kebab hall", "istanbul ocakbasi", "sultan's table", "topkapi grill"),
    "vegetarian": (
        "beetroot and barley", "the green thimble", "nettle and rye", "sprout and clover",
        "the turnip cart",
    ),
    "vietnamese": ("hanoi lantern", "little saigon pho", "mekong bowl", "pho minh"),
}  # fmt: skip

ATTRACTIONS = {
    "boat trip": (
        "arrow river cruises", "heron punts", "lady isolde steamer", "old lock narrowboats",
        "osier island ferry",
    ),
    "castle": ("aldous keep", "dunmarrow castle", "ravelin tower"),
    "church": (
        "holy well chapel", "minster of saint ysolde", "saint corvan's priory", "saint merewin's church",
        "saint ebba's church", "saint osyth's church",
    ),
    "cinema": ("the astoria picture house", "lumiere tallowgate", "regal electric", "weir street film club"),
    "concert hall": ("chandler hall", "corn staithe music rooms", "the assembly rotunda", "canticle organ room"),
    "gallery": (
        "barrowmere art space", "crosskeys gallery", "glebe print studio", "kiln and canvas",
        "larkhanger sculpture barn", "minster yard gallery", "osborne pell collection",
        "ropewalk photography rooms", "tithe barn ceramics", "vane gallery",
    ),
    "museum": (
        "almoner's house museum", "bellfounders museum", "fennimore railway museum",
        "lacemakers cottage museum", "museum of clocks and dials", "museum of river life", "old gaol museum",
        "priorsgate toy museum", "quill and ink museum", "saltmarsh natural history museum", "tannery museum",
        "thornfold farm museum", "wharfinger maritime museum",
    ),
    "nightclub": ("bluebottle", "cellar zanzibar", "club zephyr", "the brass monkey ballroom", "velvet otter"),
    "park": (
        "abbot's water meadow", "barrowmere country park", "bishop's herb garden", "dovecote gardens",
        "hollin woods", "kingfisher reach", "lockhouse green", "pinnock arboretum",
        "quarry bank nature reserve", "teasel common",
    ),
    "sports centre": (
        "fennimore leisure hub", "maltkiln climbing wall", "osier lane skate bowl",
        "thornfold tennis dome",
    ),
    "swimming pool": ("almoner road lido", "ferryman baths", "hollin splash", "priorsgate pool"),
    "theatre": (
        "canon row playhouse", "the cooper's loft", "the little marionette", "maltings stage",
        "riverbank arena theatre", "the queen maud theatre",
    ),
    "zoo": (
        "barrowmere aquarium", "butterfly house at glebe", "dunmarrow deer park", "otter sanctuary",
        "pinnock owl centre", "small beasts farm",
    ),
}  # fmt: skip

# Station, minutes to Quillminster, price in pence on a working day, first departure to and from Quillminster in minutes
# since midnight, minutes between trains.
STATIONS = (
    ("ambersley", 17, 440, 312, 325, 90),
    ("corvenham", 38, 1025, 321, 340, 90),
    ("dunsmarsh", 26, 690, 335, 318, 100),
    ("ellerwick", 52, 1480, 301, 347, 100),
    ("foxcombe regis", 64, 1675, 309, 352, 110),
    ("hathermoor", 81, 2230, 304, 361, 110),
    ("kestleford", 45, 1260, 327, 333, 80),
    ("oxenfold", 33, 880, 344, 329, 100),
    ("perrin bay", 118, 3190, 316, 368, 130),
    ("salterby", 96, 2745, 338, 356, 120),
    ("tarnholme airport", 73, 1990, 290, 305, 70),
    ("vexley junction", 58, 1550, 323, 337, 80),
)
LAST_DEPARTURE = 22 * 60 + 40


def _street(name: str, area: str) -> str | None:
    return next((street for street in STREETS[area] if street.split()[0] in name.split()), None)


class _Directory:
    """Hands out addresses, postcodes and telephone numbers, each once."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.taken: set[str] = set()
        self.phones = rng.sample(range(1000), 1000)

    def area(self, name: str, weights: Sequence[int]) -> str:
        """The area of the street that a name mentions ("osier walk" has "the osier inn"), else any."""
        area = self.rng.choices(AREAS, weights)[0]
        return next((area for area in AREAS if _street(name, area)), area)

    def address(self, name: str, area: str) -> tuple[str, str]:
        street = _street(name, area) or self.rng.choice(STREETS[area])
        while True:
            address = f"{self.rng.randint(2, 148)} {street}"
            if address not in self.taken:
                self.taken.add(address)
                letters = "".join(self.rng.sample("abdefghjlnpqrstuwxyz", 2))
                return address, f"qm{AREAS.index(area) + 1}{self.rng.randint(1, 9)}{letters}"

    def phone(self) -> str:
        return f"01632960{self.phones.pop():03d}"


def _hotels(rng: Random, directory: _Directory) -> Iterable[dict[str, str]]:
    for name in HOTELS:
        kind = (
            "guesthouse"
            if any(word in name for word in ("guest", "cottage", "breakfast", "villa", "rest"))
            else "hotel"
        )
        kind = "guesthouse" if kind == "hotel" and "hotel" not in name and rng.random() < 0.35 else kind
        area = directory.area(name, (10, 6, 4, 6, 6))
        if kind == "guesthouse":
            pricerange = rng.choices(PRICERANGES, (6, 5, 0))[0]
        else:
            pricerange = rng.choices(PRICERANGES, (2, 4, 5))[0]
        if area == "centre" and pricerange == "cheap":
            pricerange = "moderate"
        stars = {"cheap": (0, 1, 2, 3), "moderate": (2, 3, 4), "expensive": (3, 4, 5)}[pricerange]
        address, postcode = directory.address(name, area)
        yield {
            "name": name,
            "area": area,
            "pricerange": pricerange,
            "stars": str(rng.choice(stars)),
            "type": kind,
            "internet": "no" if rng.random() < 0.15 else "yes",
            "parking": "no" if rng.random() < (0.6 if area == "centre" else 0.15) else "yes",
            "address": address,
            "postcode": postcode,
            "phone": directory.phone(),
        }


def _restaurants(rng: Random, directory: _Directory) -> Iterable[dict[str, str]]:
    for food, names in RESTAURANTS.items():
        for name in names:
            area = directory.area(name, (10, 5, 6, 5, 5))
            pricerange = rng.choices(PRICERANGES, (4, 5, 4))[0]
            if (food, area) == ("korean", "west"):
                pricerange = "expensive"
            address, postcode = directory.address(name, area)
            yield {
                "name": name,
                "food": food,
                "area": area,
                "pricerange": pricerange,
                "address": address,
                "postcode": postcode,
                "phone": "" if rng.random() < 0.04 else directory.phone(),
            }


def _attractions(rng: Random, directory: _Directory) -> Iterable[dict[str, str]]:
    usually_free = {"church", "gallery", "park"}
    for kind, names in ATTRACTIONS.items():
        for name in names:
            area = directory.area(name, (10, 5, 6, 5, 5))
            if rng.random() < (0.75 if kind in usually_free else 0.15):
                fee = "free"
            else:
                fee = rng.choice(
                    (
                        "1 pound",
                        "2 pounds",
                        "2.50 pounds",
                        "3 pounds",
                        "4 pounds",
                        "5 pounds",
                        "6.50 pounds",
                        "8 pounds",
                    )
                )
            address, postcode = directory.address(name, area)
            yield {
                "name": name,
                "type": kind,
                "area": area,
                "address": address,
                "postcode": postcode,
                "phone": "" if rng.random() < 0.04 else directory.phone(),
                "entrance fee": "" if rng.random() < 0.06 else fee,
            }


def _trains(rng: Random) -> Iterable[dict[str, str]]:
    numbers = iter(rng.sample(range(1000, 10000), 4000))
    for town, duration, pence, towards, away, interval in STATIONS:
        for day in DAYS:
            weekend = day in ("saturday", "sunday")
            price = pence * 4 // 5 if weekend else pence
            for departure, destination, first in ((town, CITY, towards), (CITY, town, away)):
                start, step = (first + 60, interval + 20) if day == "sunday" else (first, interval)
                for leave in range(start, LAST_DEPARTURE - duration // 2, step):
                    if leave + duration >= 24 * 60:
                        continue
                    yield {
                        "trainID": f"TR{next(numbers)}",
                        "departure": departure,
                        "destination": destination,
                        "day": day,
                        "leaveAt": clock(leave),
                        "arriveBy": clock(leave + duration),
                        "duration": f"{duration} minutes",
                        "price": f"{price / 100:.2f} pounds",
                    }


def build(folder: Path) -> None:
    """Write the four tables into `folder`, in the format that `World.load` reads."""
    rng = Random(SEED)
    directory = _Directory(rng)
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, Sequence[dict[str, str]]] = {
        "hotel": list(_hotels(rng, directory)),
        "restaurant": sorted(_restaurants(rng, directory), key=lambda row: row["name"].removeprefix("the ")),
        "attraction": sorted(_attractions(rng, directory), key=lambda row: row["name"].removeprefix("the ")),
        "train": list(_trains(rng)),
    }
    for domain, rows in tables.items():
        with (folder / f"{domain}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [slot for slot in SLOTS[domain] if slot in rows[0]], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the tables of the invented city Quillminster.")
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).parent / "data" / CITY, help="where to write them"
    )
    build(parser.parse_args().folder)


if __name__ == "__main__":
    main()
