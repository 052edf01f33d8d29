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

from artclf.data import review
from artclf.data.catalogue import Catalogue, clean_path
from artclf.results import pages

COLOURS = {
    "keep": "#0f6cb6",
    "drop": "#b34700",
    "move": "#8e44ad",
}  # 5:1 under white text, 3:1 on a dark page
STYLE = (
    """<style>
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
    + "".join(
        f".artclf-card.artclf-{word} {{ border-color: {colour} }}\n.artclf-chip.artclf-{word} "
        f"{{ background: {colour} }}\n"
        for word, colour in COLOURS.items()
    )
    + "</style>"
)


class Card:
    """One picture with its buttons: `decide(row, choice)` is called when one is pressed."""

    def __init__(self, decide: Callable):
        self.row, self.review, self.likelier = {}, "", ""
        self.text = HTML(layout=Layout(flex="1 0 auto"))
        self.keep, self.drop = (
            Button(layout=Layout(width="auto", flex="1 1 0", min_width="0")) for _ in range(2)
        )
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
        """The period to move to: the only one with what is typed in its name, else the decided or
        the likelier one.
        """
        if typed := self.period.value.strip().lower():
            found = [period for period in self.period.options if typed in period.lower()]
            return next(
                (period for period in found if period.lower() == typed),
                found[0] if len(found) == 1 else "",
            )
        return self.review.partition(":")[2] or self.likelier

    def show(self, row: dict, thumbnail: str, periods: list[str]):
        """Show a row of `review.queue`."""
        self.row, self.thumbnail, self.review = row, thumbnail, row["review"]
        self.period.options = [period for period in periods if period != row["period"]]
        self.likelier = row["likelier"] if row["likelier"] in self.period.options else ""
        self.period.value = ""
        self.mark(row["review"])

    def mark(self, decision: str):
        """Show what was decided, by the card's colour, its words and the pressed button."""
        self.review = decision
        word, to = decision.partition(":")[0], self.target()
        for button, choice, text in (
            (self.keep, "keep", "keep"),
            (self.drop, "drop", "drop"),
            (self.move, f"move:{to}", f"move to {to or '…'}"),
        ):
            on, kind = choice == decision, choice.partition(":")[0]
            button.description = f"✓ {text}" if on else text
            button.style.button_color = COLOURS[kind] if on else None
            button.style.text_color = "white" if on else None
            button.tooltip = TOOLTIPS[kind].format(to or "the period chosen above")
        self.move.disabled = not to
        for name in COLOURS:
            (self.box.add_class if name == word else self.box.remove_class)(f"artclf-{name}")
        self.text.value = _html(self.row, self.thumbnail, decision)


TOOLTIPS = {
    "keep": "use this picture under its own period",
    "drop": "do not use this picture; its file stays",
    "move": "use this picture under {}",
}


class Review(VBox):
    """Pages of `size` pictures of `review.queue`; every press of a button is in the catalogue
    before it shows.
    """

    def __init__(self, data, flagged, file, size: int = 12):
        self.data, self.file, self.size, self.page = Path(data), Path(file), size, 0
        self.table = review.queue(data, flagged)
        self.periods = sorted(review.read_catalogue(data).period.unique())
        self.cards = [Card(self._decide) for _ in range(size)]
        self.previous, self.next, self.undo, self.export = (
            _button(*words, act)
            for words, act in (
                (("← previous", "the page before"), lambda: self._turn(-1)),
                (("next →", "the next page"), lambda: self._turn(1)),
                (("undo", "take back the last decision"), self._undo),
                (
                    (f"export to {self.file.name}", f"bring all decisions into {self.file}"),
                    self._export,
                ),
            )
        )
        reasons = self._reasons()
        self.reason = ToggleButtons(
            options=reasons, tooltips=[f"show: {text}" for text, _ in reasons]
        )
        self.reason.style.button_width = "auto"
        self.undecided = Checkbox(
            description="undecided only",
            indent=False,
            layout=Layout(width="auto"),
            tooltip="leave out what was decided before",
        )
        for control in (self.reason, self.undecided):
            control.observe(lambda _: self._filter(), "value")
        self.counter, self.status = HTML(), HTML()
        bar = HBox(
            [self.previous, self.next, self.undo, self.export, self.counter, self.status],
            layout=Layout(flex_flow="row wrap", align_items="center", grid_gap="4px 8px"),
        )
        filters = HBox(
            [self.reason, self.undecided],
            layout=Layout(flex_flow="row wrap", align_items="center", grid_gap="4px 16px"),
        )
        grid = GridBox(
            [card.box for card in self.cards],
            layout=Layout(
                grid_template_columns="repeat(auto-fill, minmax(215px, 1fr))",
                grid_gap="10px",
                padding="6px 0",
            ),
        )
        super().__init__([HTML(STYLE), filters, bar, grid, bar])
        self.add_class("artclf-review")
        self._filter()

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and a line that a page without its kernel shows in its place."""
        line = f"The review, {self._decided()} decided: run this cell in JupyterLab or VS Code to go on."
        return {
            **super()._repr_mimebundle_(**kwargs),
            "text/plain": line,
            "text/html": f"<p>{line}</p>",
        }

    def _reasons(self) -> list[tuple]:
        counts = self.table[self.table.flagged].reasons.map(kinds).explode().dropna().value_counts()
        return [("all", ""), *((f"{kind} ({count})", kind) for kind, count in counts.items())]

    def _decided(self) -> str:
        flagged = self.table[self.table.flagged]
        return f"{(flagged.review != '').sum()} of {len(flagged)}"

    def _filter(self):
        """Choose the pictures to show, whole groups of copies at a time, and go to the first page
        of them.
        """
        self._refresh()
        wanted = self.table.flagged & self.table.reasons.map(
            lambda reasons: not self.reason.value or self.reason.value in kinds(reasons)
        )
        if self.undecided.value:
            wanted &= self.table.review == ""
        self.pages = _pages(self.table[self.table.group.isin(self.table.group[wanted])], self.size)
        self.page = 0
        self._render()

    def _refresh(self):
        with Catalogue(self.data) as cat:
            decided = {
                (row["url"], row["period"]): row["review"]
                for row in cat.select("review IS NOT NULL")
            }
        self.table["review"] = [
            decided.get(key, "") for key in zip(self.table.url, self.table.period, strict=True)
        ]

    def _render(self):
        """Fill the cards with the pictures of the page."""
        rows = self.table.loc[self.pages[self.page]].to_dict("records") if self.pages else []
        thumbnails = pages.thumbnails([clean_path(row) for row in rows], self.data, 300)
        for place, card in enumerate(self.cards):
            card.box.layout.display = None if place < len(rows) else "none"
            if place < len(rows):
                card.show(rows[place], thumbnails[place], self.periods)
        self._say()

    def _say(self, text: str = ""):
        self.previous.disabled, self.next.disabled = (
            self.page == 0,
            self.page >= len(self.pages) - 1,
        )
        page = f"page {self.page + 1} of {len(self.pages)}" if self.pages else "no picture to show"
        self.counter.value = f"<span role='status'><b>{self._decided()} decided</b> · {page}</span>"
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
        self._try(lambda: self._back_to(review.undo(self.data)))

    def _back_to(self, rows: list[dict]) -> str:
        """Show the page of a decision that was taken back, and say which it was."""
        if not rows:
            return "nothing to undo: no decision was made here"
        keys = {(row["url"], row["period"]) for row in rows}
        table = self.table
        places = set(
            table.index[[key in keys for key in zip(table.url, table.period, strict=True)]]
        )
        page = next(
            (page for page, shown in enumerate(self.pages) if places & set(shown)), self.page
        )
        if page != self.page:
            self.page = page
            self._refresh()
            self._render()
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        return f"taken back: {_words(rows[0]['review'] or '')} of {rows[0]['title'] or rows[0]['url']}{more}"

    def _export(self):
        self._try(lambda: f"{review.export_csv(self.data, self.file)} decisions are in {self.file}")

    def _try(self, act: Callable[[], str]):
        """Do what a button asks and show what is decided now; an error is told, for a widget has no
        other place.
        """
        try:
            text = act()
        except (OSError, ValueError, sqlite3.Error) as error:
            text = f"not done: {error}"
        self._refresh()
        for place, card in zip(
            self.pages[self.page] if self.pages else [], self.cards, strict=False
        ):
            card.mark(self.table.review[place])
        self._say(text)


def kinds(reasons: str) -> list[str]:
    """The kinds of reasons in a text, such as `near-duplicate of raw/a.jpg (mirror); flagged: of
    one colour`.
    """
    parts = re.sub(r" of raw/.*/\w+\.\w+|\s*\(.*?\)(?=;|$)", "", reasons).split("; ")
    return [kind for part in parts if (kind := part.partition(":")[0].strip())]


def _button(text: str, tooltip: str, act: Callable) -> Button:
    button = Button(description=text, tooltip=tooltip, layout=Layout(width="auto"))
    button.on_click(lambda _: act())
    return button


def _pages(table, size: int) -> list[list[int]]:
    """The index of `table` in pages of at most `size`, groups of copies whole where they fit."""
    pages = [[]]
    for group in table.groupby("group", sort=False).groups.values():
        if pages[-1] and len(pages[-1]) + len(group) > size:
            pages.append([])
        for index in group:
            if len(pages[-1]) == size:
                pages.append([])
            pages[-1].append(index)
    return [page for page in pages if page]


def _words(decision: str) -> str:
    return decision.replace(":", " to ", 1) or "undecided"


def _html(row: dict, thumbnail: str, decision: str) -> str:
    """A picture with what is known of it; whatever strangers wrote is escaped."""
    text = {
        name: escape(str(row[name]))
        for name in ("title", "artist", "year", "reasons", "period", "likelier")
    }
    picture = (
        f'<img src="{thumbnail}" alt="{text["title"]}">'
        if thumbnail
        else '<span class="gone"></span>'
    )
    facts = ", ".join(filter(None, (text["artist"], text["year"].removesuffix(".0"))))
    word = decision.partition(":")[0]
    chip = (
        f'<span class="artclf-chip artclf-{word}">{escape(_words(decision))}</span>'
        if word
        else _words("")
    )
    likelier = f"<div>likelier <b>{text['likelier']}</b></div>" if text["likelier"] else ""
    return (
        f'<div class="artclf-picture">{picture}</div><div class="artclf-text"><div><b>{text["title"]}</b></div>'
        f"<div>{facts}</div><div>{text['reasons']}</div><div>given <b>{text['period']}</b></div>{likelier}"
        f"<div>{row['width']} × {row['height']} {chip}</div></div>"
    )
