"""The review as a widget: pages of flagged pictures, each with its reasons and buttons to keep,
drop or move it.

Built of ipywidgets' own controls, so that it works in JupyterLab and VS Code: native buttons, which
Tab reaches and Enter or Space presses, and fields to type in. There is no list to type in, where
JupyterLab would take the keys for commands (`1` makes a cell a heading, `x` cuts it). Made by
`review_page.widget`.
"""

import re
import sqlite3
from collections.abc import Callable
from html import escape
from pathlib import Path

from ipywidgets import HTML, Button, Checkbox, Combobox, GridBox, HBox, Layout, ToggleButtons, VBox

from artclf.base.errors import InputError
from artclf.data import review
from artclf.data.catalogue import Catalogue
from artclf.data.suggestions import shown_path
from artclf.results import pages

# 5:1 under white text, 3:1 on a dark page
COLOURS = {"keep": "#0f6cb6", "drop": "#b34700", "move": "#8e44ad"}

CSS = """
.artclf-card { border: 1px solid rgba(128, 128, 128, .5); border-top-width: 6px; border-radius: 4px; padding: 6px }
.artclf-card .widget-html-content { line-height: 1.35 }
.artclf-picture { height: 190px }
.artclf-picture img { width: 100%; height: 100%; object-fit: contain; margin: 0 }
.artclf-picture .gone { display: block; height: 100%; background: rgba(128, 128, 128, .4) }
.artclf-text { overflow-wrap: anywhere; font-size: 12px }
.artclf-text div { margin-top: 3px }
.artclf-chip { border-radius: 3px; padding: 1px 6px; color: white }
.artclf-review button:focus-visible, .artclf-review select:focus-visible, .artclf-review input:focus-visible {
  outline: 3px solid #e69f00 !important; outline-offset: 1px }
"""

# what follows the kind of a reason: the file that a near-duplicate shows, and details, in parentheses
# at the end; a file's folder, which is the name of a class, may have parentheses of its own
FILE = re.compile(r" of raw/.+?\.\w+(?= \()")
DETAILS = re.compile(r"\s*\(.*?\)(?=;|$)")


def _style() -> str:
    """The look of the widget, as HTML."""
    rules = [CSS]
    for word, colour in COLOURS.items():
        rules.append(f".artclf-card.artclf-{word} {{ border-color: {colour} }}")
        rules.append(f".artclf-chip.artclf-{word} {{ background: {colour} }}")
    return "<style>" + "\n".join(rules) + "</style>"


class Card:
    """One picture with its buttons: `decide(row, choice)` is called when one is pressed."""

    def __init__(self, decide: Callable[[dict, str], None]):
        self.row: dict = {}
        self.thumbnail = ""
        self.review = ""  # what was decided
        self.likelier = ""
        self.text = HTML(layout=Layout(flex="1 0 auto"))
        self.keep = Button(layout=Layout(width="auto", flex="1 1 0", min_width="0"))
        self.drop = Button(layout=Layout(width="auto", flex="1 1 0", min_width="0"))
        self.move = Button(layout=Layout(width="auto"))
        self.period = Combobox(
            placeholder="another period",
            layout=Layout(width="auto"),
            tooltip="another period to move it to: choose, or type a part of its name",
        )
        self.keep.on_click(lambda _: decide(self.row, "keep"))
        self.drop.on_click(lambda _: decide(self.row, "drop"))
        self.move.on_click(lambda _: decide(self.row, f"move:{self.target()}"))
        self.period.observe(lambda _: self.mark(self.review), "value")
        self.box = VBox(
            [self.text, HBox([self.keep, self.drop]), self.period, self.move],
            layout=Layout(overflow="hidden"),
        )
        self.box.add_class("artclf-card")

    def target(self) -> str:
        """The period that the button `move` moves to, '' for none.

        Where something is typed, it is the period of that name or the only one with it in its name.
        Where nothing is typed, it is the decided one or else the likelier one.
        """
        typed = self.period.value.strip().lower()
        if not typed:
            decided = self.review.partition(":")[2]
            return decided or self.likelier
        found = [period for period in self.period.options if typed in period.lower()]
        for period in found:
            if period.lower() == typed:
                return period
        return found[0] if len(found) == 1 else ""

    def show(self, row: dict, thumbnail: str, periods: list[str]):
        """Show a row of `review.queue`."""
        self.row = row
        self.thumbnail = thumbnail
        self.review = row["review"]
        self.period.options = [period for period in periods if period != row["period"]]
        self.likelier = row["likelier"] if row["likelier"] in self.period.options else ""
        self.period.value = ""
        self.mark(row["review"])

    def mark(self, decision: str):
        """Show what was decided, by the card's colour, its words and the pressed button."""
        self.review = decision
        target = self.target()
        self._label(self.keep, "keep", "keep", "use this picture under its own period")
        self._label(self.drop, "drop", "drop", "do not use this picture; its file stays")
        self._label(
            self.move,
            f"move:{target}",
            f"move to {target or '…'}",
            f"use this picture under {target or 'the period chosen above'}",
        )
        self.move.disabled = not target
        for word in COLOURS:
            if word == _word(decision):
                self.box.add_class(f"artclf-{word}")
            else:
                self.box.remove_class(f"artclf-{word}")
        self.text.value = _html(self.row, self.thumbnail, decision)

    def _label(self, button: Button, choice: str, text: str, tooltip: str):
        """Label a button; the one whose choice was decided looks pressed."""
        is_pressed = choice == self.review
        button.description = f"✓ {text}" if is_pressed else text
        button.style.button_color = COLOURS[_word(choice)] if is_pressed else None
        button.style.text_color = "white" if is_pressed else None
        button.tooltip = tooltip


class Review(VBox):
    """Pages of `size` pictures of `review.queue`; every press of a button is in the catalogue
    before it shows.
    """

    def __init__(self, data, flagged, file, size: int = 12):
        self.data = Path(data)
        self.file = Path(file)
        self.size = size
        self.table = review.queue(data, flagged)
        self.periods = review.classes(data)
        self.pages: list[list[int]] = []  # of indices of the table
        self.page = 0
        self._make_controls()
        self.cards = [Card(self._decide) for _ in range(size)]
        super().__init__(self._rows_of_controls())
        self.add_class("artclf-review")
        self._filter()

    def _make_controls(self):
        self.previous = _button("← previous", "the page before", lambda: self._turn(-1))
        self.next = _button("next →", "the next page", lambda: self._turn(1))
        self.undo = _button("undo", "take back the last decision", self._undo)
        self.export = _button(
            f"export to {self.file.name}", f"bring all decisions into {self.file}", self._export
        )
        reasons = self._options_of_reasons()
        tooltips = [f"show: {text}" for text, _ in reasons]
        self.reason = ToggleButtons(options=reasons, tooltips=tooltips)
        self.reason.style.button_width = "auto"
        self.reason.observe(lambda _: self._filter(), "value")
        self.undecided = Checkbox(
            description="undecided only",
            indent=False,
            layout=Layout(width="auto"),
            tooltip="leave out what was decided before",
        )
        self.undecided.observe(lambda _: self._filter(), "value")
        self.counter = HTML()
        self.status = HTML()

    def _rows_of_controls(self) -> list:
        """What the widget is made of, from top to bottom."""
        filters = HBox(
            [self.reason, self.undecided],
            layout=Layout(flex_flow="row wrap", align_items="center", grid_gap="4px 16px"),
        )
        bar = HBox(
            [self.previous, self.next, self.undo, self.export, self.counter, self.status],
            layout=Layout(flex_flow="row wrap", align_items="center", grid_gap="4px 8px"),
        )
        grid = GridBox(
            [card.box for card in self.cards],
            layout=Layout(
                grid_template_columns="repeat(auto-fill, minmax(215px, 1fr))",
                grid_gap="10px",
                padding="6px 0",
            ),
        )
        return [HTML(_style()), filters, bar, grid, bar]

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and a line that a page without its kernel shows in its place."""
        line = f"The review, {self._progress()}: run this cell in JupyterLab or VS Code to go on."
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": line, "text/html": f"<p>{line}</p>"}

    def _options_of_reasons(self) -> list[tuple[str, str]]:
        """Pairs of a label with its count and a kind of reason; '' stands for all."""
        reasons = self.table[self.table.flagged].reasons
        counts = reasons.map(kinds).explode().dropna().value_counts()
        return [("all", ""), *((f"{kind} ({count})", kind) for kind, count in counts.items())]

    def _progress(self) -> str:
        """How many of the flagged pictures are decided, in words."""
        flagged = self.table[self.table.flagged]
        return f"{(flagged.review != '').sum()} of {len(flagged)} decided"

    def _filter(self):
        """Choose the pictures to show, whole groups of copies at a time, and go to the first page
        of them.
        """
        self._refresh()
        wanted = self.table.flagged
        if self.reason.value:
            wanted = wanted & self.table.reasons.map(lambda text: self.reason.value in kinds(text))
        if self.undecided.value:
            wanted = wanted & (self.table.review == "")
        groups = self.table.group[wanted]
        self.pages = _pages(self.table[self.table.group.isin(groups)], self.size)
        self.page = 0
        self._render()

    def _refresh(self):
        """Read what is decided now."""
        with Catalogue(self.data) as cat:
            rows = cat.select("review IS NOT NULL")
        decided = {(row["url"], row["period"]): row["review"] for row in rows}
        self.table["review"] = [decided.get(key, "") for key in self._keys()]

    def _keys(self) -> list[tuple[str, str]]:
        return list(zip(self.table.url, self.table.period, strict=True))

    def _shown(self) -> list[int]:
        """The indices of the pictures of the page."""
        return self.pages[self.page] if self.pages else []

    def _render(self):
        """Fill the cards with the pictures of the page."""
        rows = self.table.loc[self._shown()].to_dict("records")
        files = [shown_path(self.data, row) for row in rows]
        thumbnails = pages.thumbnails(files, self.data, 300)
        for row, thumbnail, card in zip(rows, thumbnails, self.cards, strict=False):
            card.show(row, thumbnail, self.periods)
            card.box.layout.display = None
        for card in self.cards[len(rows) :]:
            card.box.layout.display = "none"
        self._say()

    def _say(self, text: str = ""):
        """Show where the reader is, and `text`."""
        self.previous.disabled = self.page == 0
        self.next.disabled = self.page >= len(self.pages) - 1
        page = f"page {self.page + 1} of {len(self.pages)}" if self.pages else "no picture to show"
        self.counter.value = f"<span role='status'><b>{self._progress()}</b> · {page}</span>"
        self.status.value = f"<span role='status'>{escape(text)}</span>"

    def _turn(self, step: int):
        self.page += step
        self._refresh()
        self._render()

    def _decide(self, row: dict, choice: str):
        def decide() -> str:
            review.decide(self.data, [row], choice)
            return ""

        self._try(decide)

    def _undo(self):
        def undo() -> str:
            rows = review.undo(self.data)
            self._turn_to(rows)
            return _taken_back(rows)

        self._try(undo)

    def _turn_to(self, rows: list[dict]):
        """Turn to the first page with one of `rows`, where there is one."""
        keys = {(row["url"], row["period"]) for row in rows}
        indices = {i for i, key in enumerate(self._keys()) if key in keys}
        for page, shown in enumerate(self.pages):
            if indices & set(shown):
                if page != self.page:
                    self._turn(page - self.page)
                return

    def _export(self):
        def export() -> str:
            return f"{review.export_csv(self.data, self.file)} decisions are in {self.file}"

        self._try(export)

    def _try(self, act: Callable[[], str]):
        """Do what a button asks, and show what is decided now and the text that `act` returns.

        What a person can mend is told there, for a widget has no other place; a bug is raised.
        """
        try:
            text = act()
        except (InputError, OSError, sqlite3.Error) as error:
            text = f"not done: {error}"
        self._refresh()
        for index, card in zip(self._shown(), self.cards, strict=False):
            card.mark(self.table.review[index])
        self._say(text)


def kinds(reasons: str) -> list[str]:
    """The kinds of reasons in a text: `near-duplicate` and `flagged` in
    `near-duplicate of raw/05-baroque/a.jpg (mirror); flagged: of one colour`.
    """
    without_details = DETAILS.sub("", FILE.sub("", reasons))
    found = [reason.partition(":")[0].strip() for reason in without_details.split("; ")]
    return [kind for kind in found if kind]


def _button(text: str, tooltip: str, act: Callable) -> Button:
    button = Button(description=text, tooltip=tooltip, layout=Layout(width="auto"))
    button.on_click(lambda _: act())
    return button


def _pages(table, size: int) -> list[list[int]]:
    """The index of `table` in pages of at most `size`, groups of copies whole where they fit."""
    found: list[list[int]] = [[]]
    for group in table.groupby("group", sort=False).groups.values():
        if found[-1] and len(found[-1]) + len(group) > size:
            found.append([])
        for index in group:
            if len(found[-1]) == size:
                found.append([])
            found[-1].append(index)
    return [page for page in found if page]


def _word(decision: str) -> str:
    """`keep`, `drop` or `move`; '' for undecided."""
    return decision.partition(":")[0]


def _in_words(decision: str) -> str:
    return decision.replace(":", " to ", 1) or "undecided"


def _taken_back(rows: list[dict]) -> str:
    """What an undo did, in words; `rows` are what `review.undo` returned."""
    if not rows:
        return "nothing to undo: no decision was made here"
    first = rows[0]
    decision = _in_words(first["review"] or "")
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"taken back: {decision} of {first['title'] or first['url']}{more}"


def _html(row: dict, thumbnail: str, decision: str) -> str:
    """A picture with what is known of it; whatever strangers wrote is escaped."""
    names = ("title", "artist", "year", "reasons", "period", "likelier")
    text = {name: escape(str(row[name])) for name in names}
    picture = '<span class="gone"></span>'
    if thumbnail:
        picture = f'<img src="{thumbnail}" alt="{text["title"]}">'
    facts = [text["artist"], text["year"].removesuffix(".0")]
    decided = escape(_in_words(decision))
    if decision:
        decided = f'<span class="artclf-chip artclf-{_word(decision)}">{decided}</span>'
    lines = [
        f"<b>{text['title']}</b>",
        ", ".join(fact for fact in facts if fact),
        text["reasons"],
        f"given <b>{text['period']}</b>",
    ]
    if text["likelier"]:
        lines.append(f"likelier <b>{text['likelier']}</b>")
    if row["copies"]:
        copies = "1 copy goes" if row["copies"] == 1 else f"{row['copies']} copies go"
        lines.append(f"{copies} along with your decision")
    lines.append(f"{row['width']} × {row['height']} {decided}")
    words = "".join(f"<div>{line}</div>" for line in lines)
    return f'<div class="artclf-picture">{picture}</div><div class="artclf-text">{words}</div>'
