"""What a user might write, and the answer the bundled model shall give.

An answer has three lines: how the video opens, what happens beyond what the idea says ("-" for nothing), the sound.
The idea's own words are put between them by the program, so the model never repeats them; speech reaches it as "1",
"2" and so on. Most ideas are of the video model's world; the rest are about anything, so that the model learns to
take up words it does not know.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from prompt_enhancer.training.world import COLOURS, PACES, PLACES, QUICK, SIZES, THINGS, Thing

ELSEWHERE = 0.25  # share of ideas that are not of the world

FRAMES = (
    "{thing} {does} {where} {how} with {sound}",
    "{thing} {does} {how} {where}, {sound} {every}",
    "{thing} {does} {how}, {where}",
    "{thing} {does} {where}",
    "{thing} {does} {how}",
    "{thing} {does}",
    "{thing} {does} {how} and makes {sound}",
    "{thing} {doing} {where}",
    "{thing} {doing} {how} {where}",
    "{where}, {thing} {does} {how}",
    "{where}: {thing} {doing}, {sound}",
    "{bare}",
    "{bare} {where}",
    "{bare}, {quick}",
    "{quick} {bare}",
    "{quick} {bare}, {where}, {sound}",
    "{bare} {doing}, {quick}",
    "{bare}, {sound}, {quick}, {where}",
    "{bare} {doing} {where}, we hear {sound}",
    "I want {thing} {doing} {where}",
    "I want to see {thing} {doing} {how} and hear {sound} {every}",
    "make a video of {thing} {doing} {how}",
    "make a clip where {thing} {does} {where} {how}",
    "please show {thing} that {does} {how} {where}",
    "can you make {thing} {doing}, with {sound}",
    "a short film of {thing} {doing} {where}, {quick}",
    "{sound} {every} while {thing} {does} {where}",
    "we hear {sound} when {thing} {does} {how}",
    "{the} {does} {how} {where}",
    "{the} is {doing}. it makes {sound}.",
    "there is {thing} {where}. it {does} {how}.",
    "{thing}. it {does} {how}. {sound}.",
    "in the video {thing} {does} {how}. you can hear {sound} {every}",
)
HELD_OUT_FRAMES = (
    "my idea: {thing} which {does} {where}, {how}",
    "{how} {the} {does} {where}; the sound is {sound}",
    "how about {thing} {doing} {where} at a {quick} tempo, and {sound} each time",
    "{where} there should be {thing}, {doing} {how}",
    "a loop: {bare} {doing}, {sound}, {quick}",
    "let {the} keep {doing} {how} so that we hear {sound} again and again",
    "i would love {thing} {where} that is {doing} {how} with {sound}",
    "{quick} {quickless} {doing} {where}",
    "some {bare} {doing} {where}, please",
    "{sound}! {thing} {does} {how} {where}!",
)
SPOKEN = (
    "{thing} says {speech} {where}",
    "{thing} says {speech}",
    "{thing} {where} sings {speech} {how}",
    "{thing} says {speech} again and again, {quick}",
    "{the} is saying {speech} {where}",
    "make a clip where {thing} says {speech}",
)
OPENINGS = ("The video opens on {what}.", "The scene opens with {what}.", "The first frame shows {what}.")
SOUNDS = (
    "{Every} we hear {sound}.",
    "The sound is {sound} {every}.",
    "{Sound} is heard {every}.",
    "On the sound track there is {sound} {every}, in time with the picture.",
)
EVERY = ("at every", "with every", "with each", "at each", "on every")

# Words for ideas about anything: what they mean does not matter here, only that they must be taken up whole.
ANYTHING = tuple(
    "dog cat train woman man child girl boy robot dragon car street window kitchen river mountain bird horse boat "
    "tiger whale violin guitar singer dancer chef knight astronaut teacher old young wooden golden silver black brown "
    "tall sleepy happy sad angry quiet noisy ancient modern tiny giant broken shiny dusty paper glass stone iron "
    "market castle forest desert beach harbor station bridge tower garden library bakery clock candle mirror letter "
    "bicycle truck plane rocket island snow storm thunder wave fire smoke cloud moon star planet flower tree leaf "
    "apple bread coffee tea cup table chair door stairs roof farmer sailor painter writer king queen wolf bear fox "
    "owl frog fish shark spider butterfly kite balloon puppet doll statue fountain machine engine wheel camera radio "
    "phone screen keyboardist drummer trumpet flute choir crowd soldier nurse doctor pilot driver runner "
    "swimmer".split()
)
ACTS = (
    ("walks", "walking"),
    ("runs", "running"),
    ("jumps", "jumping"),
    ("sleeps", "sleeping"),
    ("turns around", "turning around"),
    ("looks up", "looking up"),
    ("rolls away", "rolling away"),
    ("dances", "dancing"),
    ("cooks", "cooking"),
    ("waits", "waiting"),
    ("flies", "flying"),
    ("swims", "swimming"),
    ("opens a door", "opening a door"),
    ("drinks tea", "drinking tea"),
    ("rides by", "riding by"),
    ("laughs", "laughing"),
)
SPOTS = ("in the {a}", "near a {a}", "on the {a}", "by the {a}", "under a {a} {b}", "behind the {b}", "")


@dataclass(frozen=True)
class Example:
    """An idea, the three lines of its answer, and for ideas of the world what they name."""

    idea: str
    opening: str
    detail: str
    sound: str
    named: tuple[tuple[str, str], ...] = ()

    @property
    def answer(self) -> str:
        return f"{self.opening}\n{self.detail}\n{self.sound}\n"


def article(phrase: str) -> str:
    """A phrase with "a" or "an" in front."""
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"


def example(rng: random.Random, held_out: bool = False) -> Example:
    """One idea with its answer."""
    if not held_out and rng.random() < ELSEWHERE:
        return _elsewhere(rng)
    return _of_world(rng, held_out)


def _of_world(rng: random.Random, held_out: bool) -> Example:
    family = rng.choice(tuple(THINGS))
    thing = THINGS[family]
    noun = rng.choice(thing.nouns)
    colour = rng.choice(COLOURS) if rng.random() < 0.85 else ""
    size = rng.choice(SIZES) if rng.random() < 0.4 else ""
    bare = " ".join(part for part in (size, colour, noun) if part)
    spoken = family == "mouth" and not held_out and rng.random() < 0.4
    frame = rng.choice(SPOKEN if spoken else HELD_OUT_FRAMES if held_out else FRAMES)
    pace = rng.choice(tuple(PACES)) if "{quick}" in frame or rng.random() < 0.75 else ""
    does, doing = rng.choice(thing.verbs)
    slots = {
        "thing": article(bare),
        "the": f"the {bare}",
        "bare": bare,
        "quickless": bare,
        "does": does,
        "doing": doing,
        "where": rng.choice(PLACES) if rng.random() < 0.65 else "",
        "how": rng.choice(PACES[pace]) if pace else "",
        "quick": rng.choice(QUICK[pace]) if pace else "",
        "sound": rng.choice(thing.sounds),
        "every": f"{rng.choice(EVERY)} {thing.hit}",
        "speech": '"1"',
    }
    idea = _tidy(_fill(frame, slots))
    named = {name: slots[name] for name in ("where", "how", "quick", "sound") if "{" + name + "}" in frame}
    what = f"the {bare}" if "{the}" in frame else article(bare)
    opening = rng.choice(OPENINGS).format(what=" ".join(part for part in (what, named.get("where", "")) if part))
    acts = any(mark in frame for mark in ("{does}", "{doing}")) or spoken
    detail = "-" if acts else _detail(noun, thing, pace if "quick" in named else "")
    facts = {"family": noun, "colour": colour, "tempo": named.get("how") or named.get("quick", "")}
    facts["sound"] = named.get("sound", "")
    kept = tuple((name, value) for name, value in facts.items() if value)
    sound = _sound(rng, named.get("sound") or thing.sounds[0], thing.hit, slots["every"] if "every" in frame else "")
    return Example(_dressed(rng, idea), opening, detail, sound, kept)


def _detail(noun: str, thing: Thing, pace: str) -> str:
    how = {"slow": " slowly", "steady": " steadily", "fast": " fast", "": ""}[pace]
    return f"The {noun} {thing.plain[0]}{how}."


def _sound(rng: random.Random, sound: str, hit: str, every: str) -> str:
    every = every or f"{rng.choice(EVERY)} {hit}"
    return rng.choice(SOUNDS).format(every=every, Every=_capital(every), sound=sound, Sound=_capital(sound))


def _elsewhere(rng: random.Random) -> Example:
    """An idea about anything: the answer takes up its first thing and adds no action and no sound."""
    words = [rng.choice(ANYTHING) for _ in range(rng.choice((1, 2, 2, 3)))]
    if rng.random() < 0.4:
        words.insert(0, rng.choice(COLOURS))
    if rng.random() < 0.3:  # words that nobody has seen
        words[rng.randrange(len(words))] = _made_up(rng)
    phrase = " ".join(words)
    what = rng.choice((article(phrase), f"the {phrase}", f"my {phrase}", f"two {phrase}s"))
    does, doing = rng.choice(ACTS)
    spot = rng.choice(SPOTS).format(a=rng.choice(ANYTHING), b=rng.choice(ANYTHING))
    speech = rng.choice((" and says", ", saying", " and shouts:")) + ' "1"' if rng.random() < 0.35 else ""
    frame = rng.choice(
        ("{what} {does} {spot}{speech}", "{what} {doing} {spot}{speech}", "{what} {spot} {does}{speech}")
    )
    idea = _tidy(frame.format(what=what, does=does, doing=doing, spot=spot, speech=speech))
    if rng.random() < 0.4:
        idea += ". " + _tidy(f"then {what} {rng.choice(ACTS)[0]}")
    opening = rng.choice(OPENINGS).format(what=what)
    return Example(_dressed(rng, idea), opening, "-", "Each sound is heard in time with the picture.")


def _made_up(rng: random.Random) -> str:
    parts = ("ba", "lo", "ri", "ten", "mu", "sha", "kor", "vi", "zan", "pel", "gru", "ost", "eem", "fli", "quo", "dra")
    return "".join(rng.choice(parts) for _ in range(rng.choice((2, 2, 3))))


def _fill(frame: str, slots: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: slots[found[1]], frame)


def _tidy(text: str) -> str:
    """Closes the gaps that empty slots leave."""
    text = re.sub(r"\s+", " ", text).strip(" ,:;")
    text = re.sub(r"\s+([,.:;!?])", r"\1", text)
    return re.sub(r"([,:;])(?:\s*[,:;.])+", r"\1", text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _dressed(rng: random.Random, idea: str) -> str:
    style = rng.random()
    if style < 0.4:
        return _capital(idea) + ("" if idea.endswith((".", "!", '"')) else ".")
    if style < 0.6:
        return _capital(idea)
    return idea.upper() if style > 0.98 else idea
