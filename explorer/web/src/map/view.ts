// The map of a run. Its drawing is kept between visits, so that the reader finds it unchanged.

import { modalityColour } from "../colour"
import type { Bridges, Concepts, Run } from "../contract"
import * as data from "../data"
import { h } from "../dom"
import { count, counted } from "../format"
import { HEADING, type Page } from "../page"
import { nameOf } from "../parts/concept"
import { empty, failure, loading } from "../parts/notice"
import { go, here, note } from "../route"
import { onScheme, scheme } from "../theme"
import { fillPanel, hoverCard } from "./card"
import { bridgeControls, sideColumn } from "./controls"
import { type Colours, Drawing } from "./drawing"
import { type Filters, filters } from "./filters"
import { step } from "./keys"
import { legend } from "./legend"
import { conceptTable } from "./list"
import { cameraOf, cameraParams, narrowing, scoreOf, shownOf } from "./place"
import { type Ranking, ofConcept, radii, ranking, wholeMap } from "./scales"

const CARD_GAP = 14

/** Draw the map, or update the kept one from the address. */
export async function mapView(page: Page): Promise<void> {
  stage ??= new Stage()
  page.root.classList.add("wide")
  await stage.show(page)
}

let stage: Stage | null = null

/** The one map of the page: its elements, its drawing, and its present state. */
class Stage {
  private readonly canvas = h("div", {
    class: "map-canvas",
    tabindex: 0,
    role: "application",
    "aria-label":
      "Map of concepts. Arrow keys step from dot to dot, Enter selects, plus and minus zoom, 0 shows all, Escape clears the selection.",
  })
  private readonly card = h("div", { class: "map-card", hidden: true })
  private readonly ring = h("div", { class: "map-ring", hidden: true, "aria-hidden": "true" })
  private readonly said = h("p", { class: "visually-hidden", "aria-live": "polite" })
  private readonly side = h("div", { class: "map-side" })
  private readonly panel = h("aside", { class: "map-panel", "aria-label": "Selected concept", hidden: true })
  private readonly list = h("div", { class: "map-list", hidden: true })
  private readonly note = h("p", { class: "map-note", role: "status" })
  private readonly view: HTMLElement
  private drawing: Drawing | null = null
  private page!: Page
  private run: Run | null = null
  private concepts!: Concepts
  private bridges!: Promise<Bridges>
  private filters!: Filters
  private passing: Uint8Array = new Uint8Array()
  private ranked: Ranking | null = null
  private selected: number | null = null
  private hovered: number | null = null
  private edged: { ranked: Ranking; shown: number; passing: Uint8Array } | null = null // the state that the drawn edges show
  private narrowed = ""
  private timer = 0
  private frame = 0

  constructor() {
    const button = (label: string, sign: string, act: () => void) =>
      h("button", { class: "icon-button", type: "button", "aria-label": label, title: label, onclick: act }, sign)
    this.view = h(
      "div",
      { class: "map-page" },
      this.side,
      h(
        "div",
        { class: "map-main" },
        this.canvas,
        this.ring,
        this.card,
        legend(),
        h(
          "div",
          { class: "map-buttons" },
          button("Zoom in", "+", () => this.drawing?.zoom(1 / 1.6)),
          button("Zoom out", "−", () => this.drawing?.zoom(1.6)),
          button("Show all", "⤢", () => this.drawing?.move({ x: 0.5, y: 0.5, ratio: 1 }, true)),
        ),
        this.note,
        this.list,
        this.said,
      ),
      this.panel,
    )
    this.canvas.addEventListener("keydown", (event) => this.key(event))
    onScheme(() => this.run && this.drawing?.recolour(this.colours()))
  }

  async show(page: Page): Promise<void> {
    this.page = page
    const again = this.view.isConnected // the address changed while the map was visible
    if (!again) page.root.replaceChildren(this.heading(), this.view)
    if (this.run?.key !== page.run.key) await this.load(page)
    else if ((page.route.params.at ?? "") !== cameraParams(this.drawing?.camera()).at)
      this.drawing?.move(cameraOf(page.route.params))
    if (page.signal.aborted || this.run?.key !== page.run.key) return
    if (narrowing(page.route.params) !== this.narrowed) this.control(page)
    this.select(page.route.params.sel === undefined ? null : Number(page.route.params.sel))
    this.layout()
  }

  private heading(): HTMLElement {
    return h("h1", { id: HEADING, tabindex: -1, class: "visually-hidden" }, "Map of concepts")
  }

  private async load(page: Page): Promise<void> {
    this.note.replaceChildren(loading("the map"))
    this.bridges = data.bridges(page.run)
    try {
      this.concepts = await data.concepts(page.run)
    } catch (error) {
      this.note.replaceChildren(failure(error, () => void this.show(this.page)))
      return
    }
    if (page.signal.aborted) return
    const first = this.run === null
    this.run = page.run
    this.ranked = this.edged = null
    this.selected = this.hovered = null
    this.card.hidden = true
    this.drawing ??= new Drawing(this.canvas, {
      entered: (concept) => this.hover(concept),
      left: () => this.hover(null),
      clicked: (concept) => this.clicked(concept),
      opened: (concept) => go({ view: "concept", argument: String(concept), run: this.page.run.key }),
      moved: () => this.moved(),
      drawn: () => this.drawn(),
    })
    if (first) this.drawing.move(cameraOf(page.route.params))
    this.drawing.dots(
      { x: this.concepts.x, y: this.concepts.y, radius: radii(this.concepts), label: this.concepts.name.map(short) },
      this.colours(),
    )
    this.control(page)
    this.bridges.catch((error: unknown) => {
      this.note.replaceChildren(failure(error, () => ((this.run = null), void this.show(this.page))))
    })
  }

  private colours(): Colours {
    const style = getComputedStyle(document.documentElement)
    const value = (name: string) => style.getPropertyValue(name).trim()
    return {
      dot: this.concepts.modality_score.map((score) => modalityColour(score, scheme())),
      label: value("--ink"),
      ground: `${value("--ground")}b8`, // translucent
      edge: value("--edge"),
      strong: value("--accent"),
    }
  }

  /** Set the controls from the address, and the map from the controls. */
  private control(page: Page): void {
    const changed = (params: Record<string, string>) => {
      note(params)
      this.narrowed = narrowing(here().params)
      cancelAnimationFrame(this.frame)
      this.frame = requestAnimationFrame(() => this.filter())
    }
    this.filters = filters(this.concepts, page.route.params, changed)
    this.narrowed = narrowing(page.route.params)
    const bridges = bridgeControls(page, this.bridges, (all) => this.ranking(all), changed)
    this.side.replaceChildren(...sideColumn(this.filters, bridges))
    this.filter()
  }

  private ranking(all: Bridges): Ranking {
    const score = scoreOf(here().params)
    if (this.ranked?.of !== all || this.ranked.score !== score)
      this.ranked = { score, of: all, rows: ranking(all, score) }
    return this.ranked
  }

  private filter(): void {
    this.passing = this.filters.passing()
    this.drawing?.show(this.passing)
    const placed = this.concepts.x.filter((x) => x !== null).length
    let shown = 0
    this.passing.forEach((pass, concept) => (shown += pass && this.drawing?.has(concept) ? 1 : 0))
    const dead = this.concepts.x.length - placed
    const without = dead ? `; ${counted(dead, "dead concept has", "dead concepts have")} no place` : ""
    this.note.replaceChildren(
      shown
        ? `${shown === placed ? counted(placed, "concept") : `${count(shown)} of ${counted(placed, "concept")}`}${without}`
        : empty("No concept passes these filters", "Widen one of them, or reset them all."),
    )
    this.drawEdges()
    this.layout()
  }

  private drawEdges(): void {
    void this.bridges.then(
      (all) => {
        const ranked = this.ranking(all)
        const shown = shownOf(here().params, this.page.run)
        const drawn = this.edged
        if (drawn?.ranked !== ranked || drawn.shown !== shown || drawn.passing !== this.passing) {
          this.drawing?.edges(wholeMap(ranked, shown, this.passing))
          this.edged = { ranked, shown, passing: this.passing }
        }
        this.drawing?.selectedEdges(this.selected === null ? [] : ofConcept(ranked, this.selected, this.passing))
      },
      () => undefined, // load() shows the error
    )
  }

  /** Show the map or the list, as the address says. */
  private layout(): void {
    const { as, sort = "energy" } = here().params
    this.list.hidden = as !== "list"
    for (const button of this.side.querySelectorAll<HTMLElement>(".toggle button")) {
      button.setAttribute("aria-pressed", String(button.dataset.as === (as ?? "")))
    }
    if (as === "list" && this.run) this.list.replaceChildren(conceptTable(this.page, this.concepts, this.passing, sort))
  }

  private clicked(concept: number | null): void {
    this.hover(null)
    const { sel: _, ...params } = here().params
    const next = concept === null ? params : { ...params, sel: String(concept) }
    if (concept === this.selected || (concept === null && this.selected === null)) return
    go({ view: "map", run: this.page.run.key, params: { ...next, ...cameraParams(this.drawing?.camera()) } })
  }

  private select(concept: number | null): void {
    if (concept !== null && !(Number.isInteger(concept) && concept >= 0 && concept < this.page.run.concepts))
      concept = null
    if (concept === this.selected && this.panel.dataset.run === this.page.run.key) return
    this.selected = concept
    const opens = this.panel.hidden !== (concept === null)
    this.panel.hidden = concept === null
    this.view.classList.toggle("with-panel", concept !== null)
    this.panel.dataset.run = this.page.run.key
    this.panel.dataset.concept = String(concept)
    if (concept !== null && this.concepts) {
      void fillPanel(
        this.panel,
        this.page,
        this.concepts,
        this.bridges,
        (all) => this.ranking(all).rows,
        () => this.clicked(null),
      )
    }
    if (opens) this.drawing?.resized()
    this.drawEdges()
  }

  private hover(concept: number | null): void {
    if (concept === this.hovered) return
    this.hovered = concept
    this.placeRing()
    this.card.hidden = concept === null
    if (concept === null) return
    this.card.replaceChildren(hoverCard(this.page, this.concepts, concept))
    this.placeCard(concept)
  }

  private placeCard(concept: number): void {
    const at = this.drawing?.place(concept)
    if (!at) return
    const { clientWidth, clientHeight } = this.canvas
    const { offsetWidth, offsetHeight } = this.card
    const gap = at.radius + CARD_GAP
    const x = at.x + gap + offsetWidth < clientWidth ? at.x + gap : Math.max(4, at.x - gap - offsetWidth)
    const y = Math.max(4, Math.min(clientHeight - offsetHeight - 4, at.y - offsetHeight / 2))
    this.card.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`
  }

  private moved(): void {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => {
      if (this.view.isConnected) note(cameraParams(this.drawing?.camera()))
    }, 300)
  }

  private drawn(): void {
    if (this.run) markOnce("explorer:map")
    if (this.edged) markOnce("explorer:edges")
    this.placeRing()
    if (this.hovered !== null && !this.card.hidden) this.placeCard(this.hovered)
  }

  /** Place the ring around the dot under the pointer or reached with the arrow keys, else around the selected dot. */
  private placeRing(): void {
    const shown = this.hovered ?? this.selected
    const at = shown === null ? null : this.drawing?.place(shown)
    this.ring.hidden = !at
    if (!at) return
    // The card of a hovered dot shows the name already.
    this.ring.dataset.name = shown === this.hovered ? "" : short(nameOf(this.concepts, shown as number))
    const size = 2 * at.radius + 8
    this.ring.style.width = this.ring.style.height = `${size}px`
    this.ring.style.transform = `translate(${at.x - size / 2}px, ${at.y - size / 2}px)`
  }

  private key(event: KeyboardEvent): void {
    const drawing = this.drawing
    if (!drawing || !this.run || event.altKey || event.ctrlKey || event.metaKey) return
    const act = {
      "+": () => drawing.zoom(1 / 1.6),
      "=": () => drawing.zoom(1 / 1.6),
      "-": () => drawing.zoom(1.6),
      "0": () => drawing.move({ x: 0.5, y: 0.5, ratio: 1 }, true),
      Enter: () => this.hovered !== null && this.clicked(this.hovered),
      Escape: () => (this.hovered === null ? this.clicked(null) : this.hover(null)),
    }[event.key]
    const next = act ? null : step(drawing, this.passing, this.hovered ?? this.selected, event.key, this.canvas)
    if (!act && next === null) return
    event.preventDefault()
    act?.()
    if (next === null) return
    this.hover(next)
    drawing.reveal(next)
    this.said.textContent = `${nameOf(this.concepts, next)}, number ${next}`
  }
}

function short(name: string): string {
  return name.length > 40 ? `${name.slice(0, 39)}…` : name
}

function markOnce(name: string): void {
  if (!performance.getEntriesByName(name).length) performance.mark(name)
}
