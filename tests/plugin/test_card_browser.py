"""What a person sees of a card, in a real browser's page and layout."""

import json

import browser
import pytest
from card_samples import facts, save, training
from metaflow_extensions.ckptstore.plugins.checkpoint.card.page import render

pytestmark = pytest.mark.metaflow

# Everything the checks look at, as the browser has laid it out.
LOOK = """(() => {
  const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const rows = t => [...document.querySelectorAll(`table.${t} tbody tr`)].map(r => [...r.cells].map(c => c.innerText));
  const heads = t => [...document.querySelectorAll(`table.${t} th`)].map(c => c.innerText);
  const dots = svg => {
    const drawn = svg.querySelector("path.dot"), matrix = drawn.getScreenCTM();
    return [...drawn.getAttribute("d").matchAll(/M([-\\d.]+) ([-\\d.]+)h0/g)].map(
      m => { const p = new DOMPoint(+m[1], +m[2]).matrixTransform(matrix); return [p.x, p.y]; });
  };
  const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = c => rgb(c).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
  };
  const contrast = e => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const written = [...document.querySelectorAll(".ckpt *")].filter(
    e => !e.closest("svg") && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const framed = e => e.closest(".scroll");
  return {
    title: document.title,
    heading: document.querySelector("h1").innerText,
    line: document.querySelector("header .line").innerText,
    tiles: [...document.querySelectorAll(".tile")].map(t => t.innerText.split("\\n")),
    heads: heads("checkpoints"), rows: rows("checkpoints"),
    ancestorHeads: heads("ancestors"), ancestors: rows("ancestors"),
    lineage: document.querySelector(".lineage").innerText,
    lineageStyle: getComputedStyle(document.querySelector(".lineage em") || document.body).fontStyle,
    charts: [...document.querySelectorAll("svg.line")].map(svg => ({
      name: svg.closest("figure").querySelector("h3").firstChild.data, box: box(svg), dots: dots(svg),
      curve: box(svg.querySelector("path.curve")),
      marks: [...svg.parentElement.querySelectorAll(".marks.y span")].map(e => [e.innerText, box(e)]),
    })),
    timeline: [...document.querySelectorAll("svg.timeline")].map(svg => ({
      box: box(svg), bars: [...svg.querySelectorAll("rect:not(.lane)")].map(e => [e.getAttribute("class"), box(e)]),
    }))[0],
    advice: document.querySelector(".advice")?.innerText,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    outside: written.filter(e => !framed(e) && (box(e)[0] < 0 || box(e)[2] > innerWidth)).map(e => e.innerText),
    clipped: written.filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflow !== "visible")
      .map(e => e.innerText),
    faint: written.filter(e => contrast(e) < 4.5).map(e => [e.innerText, contrast(e)]),
  };
})()"""


@pytest.fixture(scope="module", autouse=True)
def _browser():
    if reason := browser.missing():
        pytest.skip(f"no browser: {reason}")


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """Render facts and return what a browser shows of them; a page is silent and asks for nothing."""

    def look(of, **how):
        path = tmp_path_factory.mktemp("card") / "card.html"
        path.write_text(render(of), encoding="ascii")
        seen = browser.visit(path.as_uri(), LOOK, **how)
        assert seen.console == []
        assert seen.requests == [path.as_uri()]
        return seen.answer

    return look


@pytest.fixture(scope="module")
def shown(look):
    return look(training())


def test_table_has_every_checkpoint_the_newest_first(shown):
    assert shown["heads"] == [
        "Name",
        "Created (UTC)",
        "Size",
        "New bytes",
        "Blocked",
        "Background",
        "Metadata",
    ]
    created = [row[1] for row in shown["rows"] if row[1] != "\N{EN DASH}"]
    assert len(shown["rows"]) == 11
    assert len(created) == 10
    assert created == sorted(created, reverse=True)
    newest = shown["rows"][0]
    assert newest[0] == "epoch"
    assert newest[2:5] == ["1.40 GiB", "383 MiB", "0.16 s"]
    assert newest[6].startswith("epoch 14")


def test_failed_save_is_marked_and_says_why(shown):
    failed = shown["rows"][5]

    assert failed[0].split() == ["epoch", "failed"]
    assert failed[1:4] == ["\N{EN DASH}"] * 3
    assert failed[6].startswith("BackendError: cannot write")


def test_lineage_goes_from_the_oldest_to_the_loaded_one(shown):
    assert shown["ancestorHeads"] == ["Index", "Attempt", "Pathspec", "Created (UTC)", "Name", "Metadata"]
    assert [row[:3] for row in shown["ancestors"]] == [
        ["0", "0", "TrainFlow/1760/train/3"],
        ["1", "0", "TrainFlow/1764/train/3"],
        ["2", "0", "TrainFlow/1764/train/3"],
    ]
    assert "Lineage of Loaded Checkpoint" in shown["lineage"]
    assert (
        "loaded \N{LEFT DOUBLE QUOTATION MARK}epoch\N{RIGHT DOUBLE QUOTATION MARK}, attempt 0"
        in shown["line"]
    )


def test_charts_have_their_points_inside_the_plot_where_the_values_are(shown):
    assert [chart["name"] for chart in shown["charts"]] == ["epoch", "val_loss", "accuracy"]
    losses = [one.metadata["val_loss"] for one in training().saved if one.state == "saved"]
    chart = shown["charts"][1]
    left, top, right, bottom = chart["box"]
    assert right - left > 200
    assert len(chart["dots"]) == len(losses)
    assert all(left <= x <= right and top <= y <= bottom for x, y in chart["dots"])
    assert [chart["dots"][0][0], chart["dots"][-1][0]] == pytest.approx([left, right], abs=1)
    # The marks are at half the height of their text: between two of them every value has its place.
    (high, above), (low, below) = chart["marks"][0], chart["marks"][-1]
    top_y, low_y = (above[1] + above[3]) / 2, (below[1] + below[3]) / 2
    assert [top_y, low_y] == pytest.approx([top, bottom], abs=1)
    per_unit = (low_y - top_y) / (float(high) - float(low))
    assert [low_y - y for _, y in chart["dots"]] == pytest.approx(
        [(loss - float(low)) * per_unit for loss in losses], abs=1.5
    )


def test_timeline_has_blocked_and_background_parts_in_order(shown):
    left, top, right, bottom = shown["timeline"]["box"]
    bars = shown["timeline"]["bars"]

    assert [kind for kind, _ in bars].count("blocked") == 10
    assert [kind for kind, _ in bars].count("background") == 10
    assert [kind for kind, _ in bars].count("bad") == 1
    assert all(left - 1 <= a < c <= right + 1 and top <= b < d <= bottom for _, (a, b, c, d) in bars)
    starts = [a for kind, (a, *_) in bars if kind != "background"]
    assert starts == sorted(starts)


def test_tiles_tell_the_totals(shown):
    tiles = {tile[0]: tile[1] for tile in shown["tiles"]}

    assert tiles["Checkpoints"] == "10"
    assert tiles["Size"] == "14.0 GiB"
    assert tiles["New bytes"] == "3.00 GiB"
    assert tiles["Deduplication"] == "3.8\N{MULTIPLICATION SIGN}"
    assert tiles["Compression"] == "1.2\N{MULTIPLICATION SIGN}"
    assert set(tiles) >= {"Blocked", "Background"}
    assert shown["advice"].startswith("Save about every 2")


@pytest.mark.parametrize("width", [1200, 500, 320])
def test_nothing_overflows_or_is_cut_off(look, width):
    long = save(11, name="a-very-long-name-without-a-space-" * 4, metadata={"k" * 60: "v" * 200})
    seen = look(facts(*training().saved, long, pathspec=f"{'LongFlowName' * 9}/1764/train/3"), width=width)

    assert seen["overflow"] <= 0
    assert seen["outside"] == []
    assert seen["clipped"] == []


@pytest.mark.parametrize("dark", [False, True])
def test_all_writing_can_be_read_in_light_and_dark(look, dark):
    states = [save(20, state="saving", blocked_s=None, background_s=None), save(21, state="deleted")]
    before = training()
    seen = look(facts(*before.saved, *states, lineage=before.lineage, state="running"), dark=dark)

    assert seen["faint"] == []


def test_without_a_loaded_checkpoint_no_lineage_is_found(look):
    seen = look(facts())

    assert "no lineage found" in seen["lineage"]
    assert seen["lineageStyle"] == "italic"
    assert seen["ancestors"] == []
    assert seen["charts"] == []


def test_one_value_is_a_point_in_the_middle(look):
    (chart,) = look(facts(save(metadata={"loss": 2.0})))["charts"]

    left, _, right, _ = chart["box"]
    assert [x for x, _ in chart["dots"]] == pytest.approx([(left + right) / 2], abs=1)


def test_markup_in_names_stays_text_in_the_browser(look):
    nasty = "</td><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"

    seen = look(facts(save(name=nasty, metadata={nasty: nasty})))

    assert seen["title"] == "Checkpoints of TrainFlow/1764/train/3"
    assert seen["rows"][0][0].startswith("</td><script>")


def test_page_in_a_notebook_changes_nothing_around_it(tmp_path):
    # A notebook puts a card's elements into its own document and runs the scripts it finds.
    of = training()
    path = tmp_path / "notebook.html"
    path.write_text("<!doctype html><title>notebook</title><p id=before>before</p><div id=cell></div>")
    page = render(facts(*of.saved, state="running"))
    put = f"""(() => {{
      const style = () => JSON.stringify([document.body, document.getElementById("before")].map(
        e => ["margin", "color", "font", "background"].map(name => getComputedStyle(e)[name])));
      const before = style();
      document.getElementById("cell").innerHTML = {json.dumps(page)};
      const script = document.createElement("script");
      script.text = document.querySelector("#cell script").text;
      const real = window.setTimeout; let timers = 0;
      window.setTimeout = () => {{ timers += 1; }};
      document.body.append(script);
      window.setTimeout = real;
      return [before === style(), timers, document.querySelectorAll("#cell table.checkpoints tbody tr").length];
    }})()"""

    assert browser.visit(path.as_uri(), put).answer == [True, 0, 11]
