"""What the corpus says: questions, commands and plain sentences of wide phonetic coverage.

The tokenizers learn sounds from these, never answers; the domain's own training phrasings are
added to them when a corpus is planned.
"""

from __future__ import annotations

import random

_W = str.split

NAMES = _W(
    "Anna Robin Peter Mary Joseph Oliver Sophie Lucas Emma George Hannah Walter Julia Victor Chloe"
    " Martin Zoe Daniel Ruth Edward Isabel Thomas Grace Henry Alice Simon Olga Hugo Nora Felix"
    " Amy Brian Claire David Eva Frank Gloria Harry Irene Jack Kate Leo Maria Nick Otto Paula"
    " Ralph Sarah Tim Ursula Vera William Yvonne James John Michael Lisa Tom Ben Sam Max Lily"
)
COUNTRIES = _W(
    "Germany France Italy Spain Portugal England Ireland Scotland Norway Sweden Finland Denmark"
    " Poland Austria Hungary Greece Turkey Egypt Kenya Nigeria Ghana Morocco India China Japan"
    " Korea Thailand Vietnam Indonesia Australia Canada Mexico Brazil Argentina Chile Peru Cuba"
    " Russia Ukraine Belgium Switzerland Iceland Croatia Bulgaria Romania Israel Iran Iraq"
    " Pakistan Nepal Mongolia Colombia Venezuela Ecuador Ethiopia Netherlands Czechia Serbia"
)
CITIES = _W(
    "Berlin Paris Rome Madrid Lisbon London Dublin Oslo Stockholm Helsinki Copenhagen Warsaw"
    " Vienna Budapest Athens Ankara Cairo Nairobi Abuja Accra Rabat Delhi Beijing Tokyo Seoul"
    " Bangkok Hanoi Jakarta Canberra Ottawa Santiago Lima Havana Moscow Kiev Brussels Bern"
    " Reykjavik Zagreb Sofia Bucharest Jerusalem Tehran Baghdad Kathmandu Bogota Caracas Quito"
    " Amsterdam Prague Belgrade Washington Brasilia Edinburgh Manila Islamabad"
)
ANIMALS = _W(
    "cat dog horse cow sheep goat pig duck goose chicken lion tiger elephant giraffe zebra monkey"
    " kangaroo koala penguin owl eagle parrot shark whale dolphin octopus spider bee butterfly ant"
    " frog snake turtle crocodile rabbit mouse squirrel fox wolf bear deer camel hippo rhino bat"
    " cheetah snail fish bird ostrich hedgehog donkey lamb puppy kitten calf foal"
)
THINGS = _W(
    "table window kitchen garden bridge river mountain forest ocean island castle village school"
    " hospital library museum theatre station airport ticket letter paper pencil picture mirror"
    " bottle glass spoon knife fork plate chair pillow blanket candle lamp clock watch camera"
    " radio guitar piano drum flute violin trumpet hammer needle thread button jacket trousers"
    " shirt shoe boot glove hat umbrella basket bucket ladder engine wheel bicycle truck train"
    " ship boat plane rocket apple orange banana cherry grape lemon melon onion carrot potato"
    " tomato pepper sugar butter cheese bread milk water juice coffee tea honey chocolate cookie"
    " snow rain thunder lightning cloud storm wind fire smoke stone sand gold silver iron copper"
    " sun moon star planet earth heart brain blood bone leg foot hand finger thumb shoulder eye"
    " ear nose mouth tooth tongue story poem song joke riddle question answer number letter word"
)
ADJECTIVES = _W(
    "red blue green yellow orange purple brown black white grey pink golden small large tiny huge"
    " heavy light quick slow happy sad angry quiet loud bright dark clean dirty young old fresh"
    " strange lovely clever foolish gentle rough smooth soft hard sweet bitter sour salty deep"
    " shallow wide narrow thick thin rich poor early late empty full warm cold hot cool wooden"
    " usual pleasant curious jolly precious"
)
VERBS = _W(
    "found watched carried painted followed pushed opened closed washed measured counted drew"
    " bought sold lost borrowed changed chose fixed broke threw caught kicked lifted moved hid"
    " cleaned mentioned described remembered forgot liked enjoyed visited joined noticed heard"
    " saw touched smelled tasted picked cooked wrapped brought showed taught judged"
)
PLACES = [
    "in the kitchen", "near the river", "behind the old church", "under the bridge", "at noon",
    "by the window", "over the hills", "last Thursday", "on Monday morning", "every evening",
    "before breakfast", "after the storm", "without a sound", "with great pleasure", "in the zoo",
    "through the forest", "during the night", "on the third of July", "in the month of February",
    "for the fifth time", "as usual", "beyond the garage", "with both hands", "in the year five",
]  # fmt: skip
DAYS = _W("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _W("January February March April May June July August September October November December")
PLANETS = _W("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune Pluto")
SMALL = _W(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
)
TENS = _W("twenty thirty forty fifty sixty seventy eighty ninety")
NUMBERS = [
    *SMALL,
    *TENS,
    *(f"{t} {s}" for t in TENS for s in SMALL[1:10]),
    "a hundred",
    "one thousand",
]
TALK = [
    "hello", "hi there", "good morning", "good evening", "good night", "goodbye", "see you later",
    "thank you very much", "thanks", "please", "you are welcome", "how are you",
    "how are you today", "who are you", "what is your name", "what can you do",
    "where do you come from", "are you a robot", "are you human", "how old are you",
    "who made you", "do you like music", "tell me a joke", "tell me another joke",
    "make me laugh", "tell me a story", "tell me a short story about {a}", "tell me a poem",
    "read me a poem", "give me a riddle", "ask me a riddle", "I give up", "I don't know",
    "what is the answer", "is it {a}", "let's play a game", "say it slower", "say it faster",
    "speak more slowly please", "can you talk faster", "say that again", "repeat that please",
    "could you repeat that", "say it happily", "say it in a sad voice", "say that sadly",
    "use the other voice", "switch to the other voice", "speak with a man's voice",
    "speak with a woman's voice", "answer like a pirate", "talk like a robot",
    "be yourself again", "stop being a pirate", "my name is {n}", "I am called {n}",
    "call me {n}", "hi I'm {n}", "what is my name", "do you remember my name",
    "what did I ask you before", "what did you just say", "and of {c}", "what about {c}",
    "and {x}", "yes", "no", "okay", "stop", "wait a moment", "of course", "never mind",
    "I feel happy today", "I am sad", "I am tired", "that was great", "that is wrong",
    "well done", "what time is it", "what is the weather like", "can you help me",
    "what is the meaning of life",
]  # fmt: skip
QUESTIONS = [
    "what is the capital of {c}", "tell me the capital of {c}",
    "which city is the capital of {c}", "do you know the capital city of {c}",
    "what's the capital of {c} please", "{city} is the capital of {c}",
    "in which country is {city}", "is {city} in {c}", "{city} is the capital of which country",
    "what is {x} plus {y}", "how much is {x} minus {y}", "what is {x} times {y}",
    "add {x} and {y}", "what do you get if you take {x} from {y}", "{x} plus {y} is {z}",
    "what is {x} divided by {y}", "multiply {x} by {y}", "the answer is {x}",
    "can you work out {x} plus {y}", "{x} times {y} makes {z}", "what colour is {t}",
    "what colour is the {t}", "what sound does {a} make", "what does {a} say",
    "how many legs does {a} have", "what do you call a baby {t}", "what does {a} eat",
    "where does {a} live", "can {a} fly", "what is the fastest animal",
    "which animal is the biggest", "what day comes after {d}", "which day is before {d}",
    "what month comes after {m}", "which month comes before {m}",
    "how many days are there in {m}", "how many days are in a week",
    "how many months are in a year", "which planet is closest to the sun",
    "is {p} bigger than {p2}", "what is the third planet",
    "which planet is known as the red planet", "tell me about {p}",
    "the capital of {c} is {city}", "what is the opposite of {j}", "how do you spell {t}",
    "what do bees make", "who wrote {t} and {t2}", "which is heavier {a} or {t}",
    "what shape has {x} sides", "how many minutes are in {x} hours",
]  # fmt: skip
SENTENCES = [
    "{n} {v} the {j} {t} {where}", "the {j} {animal} {v} a {t} {where}",
    "{n} and {n2} {v} {x} {t}s", "I think that the {t} was {j} and {j2}",
    "why did {n} visit {city} {where}", "we {v} our {j} {t}",
    "they never {v} the {t} from {city}", "{where} {n} {v} {a}",
    "should we choose the {t} or the {t2}", "there is a {j} {t} behind the {t2}",
    "he said the {animal} was {j}", "her {t} is as {j} as a {t2}",
    "please give the {t} to {n} {where}", "the {t} and the {t2} were both {j}",
    "{x} {j} {animal}s {v} us",
]  # fmt: skip


def _article(word: str) -> str:
    return f"an {word}" if word[0].lower() in "aeiou" else f"a {word}"


def fill(template: str, rng: random.Random) -> str:
    """Put random words into the braces of `template`, and give it a capital and an end."""
    pick = rng.choice
    text = template.format(
        n=pick(NAMES), n2=pick(NAMES), c=pick(COUNTRIES), city=pick(CITIES), animal=pick(ANIMALS),
        a=_article(pick(ANIMALS)), t=pick(THINGS), t2=pick(THINGS),
        j=pick(ADJECTIVES), j2=pick(ADJECTIVES),
        v=pick(VERBS), where=pick(PLACES), x=pick(NUMBERS), y=pick(NUMBERS), z=pick(NUMBERS),
        d=pick(DAYS), m=pick(MONTHS), p=pick(PLANETS), p2=pick(PLANETS),
    )  # fmt: skip
    asks = _W("what which who how do can is in where are tell could why should will")
    end = "?" if text.split()[0] in asks else pick("...!")
    return text[0].upper() + text[1:] + end


def sentences(count: int, seed: int = 0) -> list[str]:
    """`count` different texts: two fifths questions, two fifths sentences, one fifth small talk."""
    rng = random.Random(seed)
    kinds = (QUESTIONS, QUESTIONS, SENTENCES, SENTENCES, TALK)
    texts: dict[str, None] = {}
    while len(texts) < count:
        text = fill(rng.choice(rng.choice(kinds)), rng)
        if rng.random() < 0.25:  # breaths and sentence ends inside an utterance
            text += " " + fill(rng.choice(rng.choice(kinds)), rng)
        texts[text] = None
    return list(texts)
