"""The card's page is whole, bounded and nothing but text, whatever was saved."""

import math
import re
from html.parser import HTMLParser

import pytest
from card_samples import facts, save, training
from metaflow_extensions.ckptstore.plugins.checkpoint.card.facts import LineageFact
from metaflow_extensions.ckptstore.plugins.checkpoint.card.interval import recommended_interval_s
from metaflow_extensions.ckptstore.plugins.checkpoint.card.page import MAX_CHARTS, MAX_ROWS, render
from metaflow_extensions.ckptstore.plugins.checkpoint.card.text import duration, size

pytestmark = pytest.mark.metaflow

NASTY = [
    "<script>alert(1)</script>",
    "</style></script><img src=x onerror=alert(1)>",
    "\"' onmouseover=alert(1) x='",
    "--><!-- ]]> &amp; &lt;",
    "\ud800 \x00 \x1b[31m \u202e",
    "\N{SNOWMAN} \N{PILE OF POO}",
    "x" * 100_000,
]


class Elements(HTMLParser):
    """Reads a page, strictly: every element is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def count(self, tag: str, css: str | None = None) -> int:
        return sum(found == tag and css in (None, attrs.get("class")) for found, attrs in self.seen)


@pytest.mark.parametrize("nasty", NASTY)
def test_what_a_user_names_is_text_and_never_markup(nasty):
    one = save(name=nasty, metadata={nasty: nasty, "loss": 1.0}, error=nasty)
    plain = Elements(render(facts(save(name="n", metadata={"k": "v", "loss": 1.0}, error="e"))))
    lineage = (LineageFact(nasty, 0, nasty, "2026-01-01T00:00:00+00:00", {nasty: nasty}),)

    page = render(facts(one))
    found = Elements(page)

    assert [tag for tag, _ in found.seen] == [tag for tag, _ in plain.seen]
    assert [set(attrs) for _, attrs in found.seen] == [set(attrs) for _, attrs in plain.seen]
    assert page.isascii()
    assert len(page) < len(render(facts())) + 10_000
    assert Elements(render(facts(lineage=lineage, pathspec=nasty[:500]))).count("script") == 1


def test_page_needs_nothing_from_anywhere():
    page = render(training())

    assert not re.search(r"https?:|//|@import|url\(|\bsrc=|\bhref=|<link|<iframe", page)
    assert "refresh" not in page


def test_ten_thousand_checkpoints_make_a_small_page():
    saves = [save(n, metadata={f"m{k}": n * k for k in range(10)}) for n in range(10_000)]

    page = render(facts(*saves, elapsed_s=600_000.0))
    found = Elements(page)

    assert len(page) < 1_000_000
    assert found.count("tr") == MAX_ROWS + 1
    assert "9,500 older ones are left out" in found.text
    assert f"the newest {MAX_ROWS} of 10,000 saves" in found.text
    assert found.count("svg", "line") == MAX_CHARTS
    assert "4 more values not shown" in found.text
    assert "10,000" in found.text


def test_lineage_of_a_thousand_keeps_its_indexes_and_is_bounded():
    lineage = tuple(LineageFact("epoch", 0, "F/1/s/1", "2026-01-01T00:00:00+00:00") for _ in range(1000))

    text = Elements(render(facts(lineage=lineage))).text

    assert "800 older ones are left out" in text
    assert " 999 " in text
    assert " 799 " not in text


def test_empty_task_has_a_page_that_says_so():
    found = Elements(render(facts(elapsed_s=0.0, observed_s=0.0)))

    for said in (
        "no checkpoint was found at the start",
        "Nothing was saved yet.",
        "Nothing was saved in this attempt yet.",
        "no lineage found",
        "No save was measured yet.",
    ):
        assert said in found.text
    assert found.count("tr") == 0


@pytest.mark.parametrize(
    "values",
    [
        [math.nan],
        [math.inf, -math.inf, math.nan],
        [1.0, math.nan, 2.0, 3.0, math.inf, 4.0],
        [0.0],
        [5, 5, 5],
        [-1e308, 1e308],
        [1e-320, 2e-320],
        [10**400, 1],
        [-(10**2000)],
        [3e-12] * 700,
        [math.nan if n % 2 else float(n) for n in range(5000)],
    ],
)
def test_any_number_can_be_charted(values):
    page = render(facts(*(save(n, metadata={"x": value}) for n, value in enumerate(values))))
    found = Elements(page)

    drawn = " ".join(attrs["d"] or "" for tag, attrs in found.seen if tag == "path")
    coordinates = [tuple(map(float, pair)) for pair in re.findall(r"(-?[\d.]+) (-?[\d.]+)", drawn)]
    assert "nan" not in drawn
    assert all(0 <= x <= 1000 and 0 <= y <= 112 for x, y in coordinates)
    n_finite = sum(_is_finite(value) for value in values)
    assert bool(coordinates) == bool(n_finite)
    if n_finite < len(values):
        assert f"{len(values) - n_finite:,} not finite, left out" in found.text


def test_texts_and_truth_values_are_no_charts():
    found = Elements(render(facts(save(metadata={"a": "1.5", "b": True, "c": None, "d": [1.0]}))))

    assert found.count("svg", "line") == 0


def test_metadata_of_most_checkpoints_is_charted_first():
    saves = [save(n, metadata={"rare": 1.0} if n == 0 else {"common": 1.0}) for n in range(3)]

    text = Elements(render(facts(*saves))).text

    assert text.index("common") < text.index("rare")


def test_extremes_survive_in_a_chart_of_many_checkpoints():
    saves = [save(n, metadata={"x": 100.0 if n == 1234 else 50.0 if n != 3456 else 0.0}) for n in range(5000)]

    drawn = [
        attrs["d"] for tag, attrs in Elements(render(facts(*saves))).seen if attrs.get("class") == "curve"
    ]

    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", drawn[0])]
    assert {min(heights), max(heights)} == {0.0, 112.0}
    assert len(heights) <= 300


def test_tiles_add_up_what_is_durable():
    saves = (
        save(0),
        save(1, new_bytes=0),
        save(2, state="deleted"),
        save(3, state="failed", background_s=None),
        save(4, state="saving", blocked_s=None, background_s=None),
    )

    text = Elements(render(facts(*saves, elapsed_s=20.0))).text

    assert "Checkpoints 3 1 being saved, 1 failed, 1 deleted since" in text
    assert "Size 8.79 KiB" in text
    assert "New bytes 1000 B of 5.86 KiB stored" in text
    assert "Deduplication 6.0\N{MULTIPLICATION SIGN}" in text
    assert "Compression 1.5\N{MULTIPLICATION SIGN}" in text
    assert "Blocked 2.00 s 10.0% of the time" in text
    assert "Background 7.50 s" in text


def test_checkpoints_that_share_everything_have_no_ratio():
    assert "all shared" in Elements(render(facts(save(new_bytes=0)))).text


def test_young_daly_interval():
    # A second to save, a failure an hour: the square root of 2 * 1 * 3600.
    assert recommended_interval_s(1.0, 3600.0) == pytest.approx(84.853, abs=1e-3)
    assert recommended_interval_s(100.0, 200.0) == pytest.approx(200.0)
    assert recommended_interval_s(1000.0, 200.0) == 200.0


def test_interval_is_recommended_from_the_failures_seen():
    # Two failures in 7200 s, half a second each: sqrt(2 * 0.5 * 3600) = 60 s.
    text = Elements(render(facts(save(0), save(1), n_failures=2, observed_s=7200.0))).text

    assert "Save about every 1 min , for 2 failures in the 2 h that are known of." in text
    assert "A save held the step up for 0.50 s on average of 2 saves." in text
    assert "It then took 2.50 s in the background" in text
    assert "This attempt has saved every 1 min on average." in text


def test_without_a_failure_the_interval_is_given_for_assumed_rates():
    text = Elements(render(facts(save(0)))).text

    assert "No failure was seen in 10 min, so how often they come is not known." in text
    assert "For one an hour save about every 1 min , for one a day every 4 min 54 s ." in text


def test_interval_is_never_below_what_a_save_takes_in_the_background():
    text = Elements(render(facts(save(0, blocked_s=1e-6, background_s=300.0)))).text

    assert "For one an hour save about every 5 min , for one a day every 5 min ." in text


def test_what_earlier_attempts_saved_is_told_apart_and_has_no_times():
    earlier = save(0, attempt=0, started_s=None, blocked_s=None, background_s=None)

    found = Elements(render(facts(earlier, save(1, attempt=1), attempt=1)))

    assert "attempt 0" in found.text
    assert found.count("rect", "blocked") == 1
    assert "on average of 1 save." in found.text


def test_page_says_that_retention_deletes_what_it_does_not_follow():
    kept = Elements(render(facts(save(), keep="last(3) | best('val_loss', 2)"))).text

    assert "retention keeps last(3) | best('val_loss', 2), others may be gone by now" in kept
    assert "retention" not in Elements(render(facts(save()))).text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0 ms"),
        (0.0012, "1.2 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.10 s"),
        (9.994, "9.99 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (61, "1 min 1 s"),
        (3599.6, "1 h"),
        (3900, "1 h 5 min"),
        (172799, "47 h 59 min"),
        (172800, "2 d"),
        (180000, "2 d 2 h"),
    ],
)
def test_durations_read_as_a_person_would_say_them(seconds, said):
    assert duration(seconds) == said


def test_sizes_keep_three_digits():
    assert [size(n) for n in (0, 1023, 1024, 15_000, 150_000, 1_503_238_553, 2**70)] == [
        "0 B",
        "1023 B",
        "1.00 KiB",
        "14.6 KiB",
        "146 KiB",
        "1.40 GiB",
        "1048576 PiB",
    ]


def _is_finite(value):
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
