// The map of a run. Its drawing is kept between visits, so that the reader finds it unchanged.

import type { Bridges, Concepts, Run } from "../contract"
import * as data from "../data"
import { h } from "../dom"
import { count, counted } from "../format"
import { HEADING, type Page } from "../page"
import { nameOf } from "../parts/concept"
import { saveMap } from "../parts/download"
import { empty, failure, loading } from "../parts/notice"
import { decoded, encoded } from "../parts/selection"
import { go, here, note } from "../route"
import { onScheme, scheme } from "../theme"
import { unknownColour } from "../colour"
import { fillPanel, hoverCard } from "./card"
import { LABEL, QUERY, type Shown, coloursOf, columnOf, labelOf, queryOf } from "./columns"
import { bridgeControls, sideColumn } from "./controls"
import { type Colours, Drawing } from "./drawing"
import { type Filters, filters } from "./filters"
import { step } from "./keys"
import { fillLegend } from "./legend"
import { conceptTable } from "./list"
import { lookControls } from "./look"
import { fillPicked } from "./picked"
import { cameraOf, cameraParams, narrowing, scoreOf, shownOf } from "./place"
import { type Place, Region, holds } from "./region"
import { type Ranking, ofConcept, ofConcepts, radii, ranking, wholeMap } from "./scales"

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
      "Map of concepts. Arrow keys step from dot to dot, Enter opens, Space selects, B starts a box, plus and minus zoom, 0 shows all, Escape clears the selection.",
  })
  private readonly card = h("div", { class: "map-card", hidden: true })
  private readonly ring = h("div", { class: "map-ring", hidden: true, "aria-hidden": "true" })
  private readonly said = h("p", { class: "visually-hidden", "aria-live": "polite" })
  private readonly side = h("div", { class: "map-side" })
  private readonly panel = h("aside", { class: "map-panel", "aria-label": "Selected concept", hidden: true })
  private readonly pickedPanel = h("aside", { class: "map-panel", "aria-label": "Selection", hidden: true })
  private readonly legend = h("dl", { class: "legend", "aria-label": "Legend" })
  private readonly region: Region
  private readonly list = h("div", { class: "map-list", hidden: true })
  private readonly note = h("p", { class: "map-note", role: "status" })
  private readonly view: HTMLElement
  private drawing: Drawing | null = null
  private page!: Page
  private run: Run | null = null
  private concepts!: Concepts
  private reading: Promise<Bridges> | null = null // the bridges, once something needs them
  private filters!: Filters
  private passing: Uint8Array = new Uint8Array()
  private ranked: Ranking | null = null
  private selected: number | null = null
  private picked = new Set<number>()
  private isTooLong = false // the selection does not fit into the address
  private colour!: Shown
  private size!: Shown
  private asked = "" // the query whose result is shown
  private answered: Shown | null = null
  private hovered: number | null = null
  /** The state that the drawn edges show; without a ranking where no bridge is drawn. */
  private edged: { ranked: Ranking | null; shown: number; passing: Uint8Array } | null = null
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
        this.legend,
        h(
          "div",
          { class: "map-buttons" },
          button("Zoom in", "+", () => this.drawing?.zoom(1 / 1.6)),
          button("Zoom out", "−", () => this.drawing?.zoom(1.6)),
          button("Show all", "⤢", () => this.drawing?.move({ x: 0.5, y: 0.5, ratio: 1 }, true)),
          button("Save as PNG", "⤓", () => this.drawing?.drawn(() => saveMap(this.canvas, "concepts.png"))),
        ),
        this.note,
        this.list,
        this.said,
      ),
      this.panel,
      this.pickedPanel,
    )
    this.region = new Region(
      this.canvas,
      (outline, add) => this.choose(outline, add),
      (text) => (this.said.textContent = text),
    )
    this.canvas.parentElement?.append(this.region.tools)
    this.canvas.addEventListener("keydown", (event) => this.key(event))
    onScheme(() => this.run && this.paint())
  }

  async show(page: Page): Promise<void> {
    this.page = page
    const again = this.view.isConnected // the address changed while the map was visible
    if (!again) page.root.replaceChildren(this.heading(), this.view)
    if (this.run?.key !== page.run.key) await this.load(page)
    else if ((page.route.params.at ?? "") !== cameraParams(this.drawing?.camera()).at)
      this.drawing?.move(cameraOf(page.route.params))
    if (page.signal.aborted || this.run?.key !== page.run.key) return
    this.fromAddress(page)
    if (narrowing(page.route.params) !== this.narrowed) this.control(page)
    this.select(page.route.params.sel === undefined ? null : Number(page.route.params.sel))
    this.layout()
  }

  private heading(): HTMLElement {
    return h("h1", { id: HEADING, tabindex: -1, class: "visually-hidden" }, "Map of concepts")
  }

  private async load(page: Page): Promise<void> {
    this.note.replaceChildren(loading("the map"))
    this.reading = null
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
    this.answered = null
    this.fromAddress(page)
    this.control(page)
    this.showPicked()
  }

  /** All bridges. They are not read before a reader asks for some: the first view would load their file for nothing. */
  private bridges(): Promise<Bridges> {
    if (!this.reading) {
      this.reading = data.bridges(this.page.run)
      this.reading.catch((error: unknown) => {
        this.note.replaceChildren(failure(error, () => ((this.run = null), void this.show(this.page))))
      })
    }
    return this.reading
  }

  private colours(): Colours {
    const style = getComputedStyle(document.documentElement)
    const value = (name: string) => style.getPropertyValue(name).trim()
    return {
      dot: this.dotColours(),
      label: value("--ink"),
      ground: `${value("--ground")}b8`, // translucent
      edge: value("--edge"),
      strong: value("--accent"),
    }
  }

  private dotColours(): string[] {
    const own = coloursOf(this.colour, scheme())
    return this.picked.size
      ? own.map((colour, concept) => (this.picked.has(concept) ? colour : unknownColour(scheme())))
      : own
  }

  /** Replace all dots, with the sizes that the address asks for. */
  private dots(): void {
    const { x, y, name } = this.concepts
    this.drawing?.dots({ x, y, radius: radii(this.size.values), label: name.map(short) }, this.colours())
    this.edged = null
  }

  /** Read from the address what colours and sizes show. */
  private choosing(): void {
    const { colour = "", size = "", label = "" } = here().params
    const modality = columnOf("modality", this.concepts) as Shown
    this.colour = columnOf(colour, this.concepts) ?? modality
    if (colour === LABEL && label) this.colour = labelOf(label, this.concepts)
    if (colour === QUERY && this.answered) this.colour = this.answered
    this.size = columnOf(size, this.concepts) ?? (columnOf("energy", this.concepts) as Shown)
    fillLegend(this.legend, this.colour, this.size)
  }

  private paint(): void {
    this.drawing?.recolour(this.colours())
  }

  /** Ask the query of the address, if it colours the map, and then draw its result. */
  private query(): void {
    const { colour, cq = "" } = here().params
    if (colour !== QUERY || !cq || !this.page.manifest.live || (cq === this.asked && this.answered)) return
    this.asked = cq
    void queryOf(cq, this.page.run, this.page.signal).then(
      (shown) => {
        this.answered = shown
        this.choosing()
        this.paint()
      },
      (error: unknown) => !this.page.signal.aborted && this.note.replaceChildren(failure(error)),
    )
  }

  private fromAddress(page: Page): void {
    const { pick } = page.route.params
    if (this.isTooLong && pick === undefined) return
    const picked = new Set(pick ? decoded(pick, page.run.concepts) : [])
    if (picked.size === this.picked.size && [...picked].every((concept) => this.picked.has(concept))) return
    this.picked = picked
    if (this.run?.key === page.run.key && this.edged) this.showPicked()
  }

  /** Select the concepts within an outline. */
  private choose(outline: readonly Place[], add: boolean): void {
    const found = [...this.passing.keys()].filter((concept) => {
      const at = this.passing[concept] ? this.drawing?.place(concept) : null
      return at ? holds(outline, at.x, at.y) : false
    })
    this.pick(new Set(add ? [...this.picked, ...found] : found))
  }

  private toggle(concept: number): void {
    const next = new Set(this.picked)
    if (!next.delete(concept)) next.add(concept)
    this.pick(next)
  }

  private pick(next: Set<number>): void {
    this.picked = next
    const text = encoded([...next].sort((a, b) => a - b))
    this.isTooLong = next.size > 0 && text === ""
    note({ pick: text })
    this.said.textContent = `${counted(next.size, "concept")} selected`
    this.showPicked()
  }

  private showPicked(): void {
    const numbers = [...this.picked].sort((a, b) => a - b)
    if (numbers.length)
      fillPicked(
        this.pickedPanel,
        this.page,
        this.concepts,
        numbers,
        (concept) => this.toggle(concept),
        () => this.pick(new Set()),
        this.isTooLong,
      )
    this.panels()
    this.paint()
    this.drawing?.nameFirst(numbers)
    this.drawEdges()
    for (const box of this.list.querySelectorAll<HTMLInputElement>("input[type=checkbox]"))
      box.checked = this.picked.has(Number(box.getAttribute("aria-label")?.split(" ").at(-1)))
  }

  /** Show the panel of the concept, else that of the selection, else none. */
  private panels(): void {
    const before = this.panel.hidden && this.pickedPanel.hidden
    this.panel.hidden = this.selected === null
    this.pickedPanel.hidden = this.selected !== null || this.picked.size === 0
    const after = this.panel.hidden && this.pickedPanel.hidden
    this.view.classList.toggle("with-panel", !after)
    if (before !== after) this.drawing?.resized()
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
    const bridges = bridgeControls(
      page,
      () => this.bridges(),
      (all) => this.ranking(all),
      changed,
    )
    const looked = (params: Record<string, string>) => {
      const sized = here().params.size
      note(params)
      this.narrowed = narrowing(here().params)
      if (params.cq !== undefined) this.answered = null
      this.choosing()
      if (here().params.size !== sized) this.dots()
      else this.paint()
      this.filter()
      this.query()
    }
    this.side.replaceChildren(...sideColumn(this.filters, lookControls(page, this.concepts, looked), bridges))
    this.choosing()
    this.dots()
    this.filter()
    this.query()
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
    const shown = shownOf(here().params)
    if (!shown && this.selected === null && !this.picked.size) {
      this.drawing?.edges([])
      this.drawing?.selectedEdges([])
      this.edged = { ranked: null, shown, passing: this.passing }
      return
    }
    void this.bridges().then(
      (all) => {
        const ranked = this.ranking(all)
        const shown = shownOf(here().params)
        const drawn = this.edged
        if (drawn?.ranked !== ranked || drawn.shown !== shown || drawn.passing !== this.passing) {
          this.drawing?.edges(wholeMap(ranked, shown, this.passing))
          this.edged = { ranked, shown, passing: this.passing }
        }
        this.drawing?.selectedEdges(
          this.selected === null
            ? ofConcepts(ranked, this.picked, this.passing)
            : ofConcept(ranked, this.selected, this.passing),
        )
      },
      () => undefined, // bridges() shows the error
    )
  }

  /** Show the map or the list, as the address says. */
  private layout(): void {
    const { as, sort = "energy" } = here().params
    this.list.hidden = as !== "list"
    for (const button of this.side.querySelectorAll<HTMLElement>(".toggle button")) {
      button.setAttribute("aria-pressed", String(button.dataset.as === (as ?? "")))
    }
    if (as === "list" && this.run) {
      const ticks = { picked: this.picked, toggle: (concept: number) => this.toggle(concept) }
      this.list.replaceChildren(conceptTable(this.page, this.concepts, this.passing, sort, ticks))
    }
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
    this.panels()
    this.panel.dataset.run = this.page.run.key
    this.panel.dataset.concept = String(concept)
    if (concept !== null && this.concepts) {
      void fillPanel(
        this.panel,
        this.page,
        this.concepts,
        this.bridges(),
        (all) => this.ranking(all).rows,
        () => this.clicked(null),
      )
    }
    this.drawing?.nameFirst(concept === null ? [...this.picked] : [concept])
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
    if (this.region.key(event)) {
      event.preventDefault()
      return
    }
    const current = this.hovered ?? this.selected
    const act = {
      " ": () => current !== null && this.toggle(current),
      "+": () => drawing.zoom(1 / 1.6),
      "=": () => drawing.zoom(1 / 1.6),
      "-": () => drawing.zoom(1.6),
      "0": () => drawing.move({ x: 0.5, y: 0.5, ratio: 1 }, true),
      Enter: () => this.hovered !== null && this.clicked(this.hovered),
      Escape: () => (this.hovered === null ? this.clicked(null) : this.hover(null)),
    }[event.key]
    const next = act ? null : step(drawing, this.passing, current, event.key, this.canvas)
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
