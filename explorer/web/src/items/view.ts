// The map of items: images and captions as dots, thumbnails where few images are in the window. Kept between visits.

import type { Concepts, ItemMap } from "../contract"
import * as data from "../data"
import { h, styled } from "../dom"
import { count, counted } from "../format"
import { type Place, Region } from "../map/region"
import { HEADING, type Page } from "../page"
import { conceptLink } from "../parts/concept"
import { saveMap } from "../parts/download"
import { empty, failure, loading } from "../parts/notice"
import { thumbnail } from "../parts/pictures"
import { decoded, encoded } from "../parts/selection"
import { go, here, note } from "../route"
import { type Camera, Cloud, FAINT, HIDDEN, LIT, TICKED } from "./cloud"
import { lit } from "./lit"
import { type Chosen, itemCard, modalityOf, selectionPanel, wordsOf } from "./panel"

const THUMB = 46 // pixels of a thumbnail on the map
const THUMBS = 70 // most thumbnails on the map
const SEARCHED = 4000 // with more images in the window, no thumbnails are looked for
const HOME: Camera = { x: 0, y: 0, ratio: 1 }
const ARROWS: Record<string, readonly [number, number]> = {
  ArrowRight: [1, 0],
  ArrowLeft: [-1, 0],
  ArrowDown: [0, 1],
  ArrowUp: [0, -1],
}

/** Draw the map of items, or update the kept one from the address. */
export async function itemsView(page: Page): Promise<void> {
  page.root.classList.add("wide")
  if (!page.manifest.maps.some(({ model }) => model === page.run.model)) {
    page.root.replaceChildren(
      h("h1", { id: HEADING, tabindex: -1 }, "Map of items"),
      empty("This run has no map of items", "It was made by an earlier version: bridgescope run makes the map."),
    )
    return
  }
  stage ??= new Stage()
  await stage.show(page)
}

let stage: Stage | null = null

/** The map of a run for what the address asks: by embeddings, or by codes where there is such a map. */
function mapOf({ manifest, run, route }: Page): ItemMap {
  const own = manifest.maps.filter(({ model }) => model === run.model)
  const wanted = own.find(({ by, sae }) => by === "codes" && sae === run.sae)
  return (route.params.by === "codes" && wanted) || (own.find(({ by }) => by === "embeddings") ?? (own[0] as ItemMap))
}

class Stage {
  private readonly canvas = h("div", {
    class: "map-canvas items-canvas",
    tabindex: 0,
    role: "application",
    "aria-label":
      "Map of items. Arrow keys step from dot to dot, Enter shows the item, Space ticks it, B starts a box, plus and minus zoom, 0 shows all, Escape clears.",
  })
  private readonly thumbs = h("div", { class: "item-thumbs", "aria-hidden": "true" })
  private readonly card = h("div", { class: "map-card", hidden: true })
  private readonly ring = h("div", { class: "map-ring", hidden: true, "aria-hidden": "true" })
  private readonly said = h("p", { class: "visually-hidden", "aria-live": "polite" })
  private readonly side = h("div", { class: "map-side" })
  private readonly panel = h("aside", { class: "map-panel", "aria-label": "Item and selection", hidden: true })
  private readonly note = h("p", { class: "map-note", role: "status" })
  private readonly view: HTMLElement
  private readonly region: Region
  private cloud: Cloud | null = null
  private page!: Page
  private map: ItemMap | null = null
  private items!: data.MapItems
  private places!: { x: Int16Array; y: Int16Array }
  private concepts!: Concepts
  private lit: Uint32Array | null = null
  private litKey = ""
  private limit = ""
  private ticked = new Set<number>()
  private overflow = false // the selection is too long for the address
  private selected: number | null = null
  private hovered: number | null = null
  private shownPanel = ""
  private timer = 0
  private resting = 0

  constructor() {
    const button = (label: string, sign: string, act: () => void) =>
      h("button", { class: "icon-button", type: "button", "aria-label": label, title: label, onclick: act }, sign)
    const main = h(
      "div",
      { class: "map-main" },
      this.canvas,
      this.thumbs,
      this.ring,
      this.card,
      legend(),
      h(
        "div",
        { class: "map-buttons" },
        button("Zoom in", "+", () => this.cloud?.zoom(1 / 1.6)),
        button("Zoom out", "−", () => this.cloud?.zoom(1.6)),
        button("Show all", "⤢", () => this.cloud?.move(HOME)),
        button("Save as PNG", "⤓", () => saveMap(this.canvas, "items.png")),
      ),
      this.note,
      this.said,
    )
    this.region = new Region(
      this.canvas,
      (outline, add) => this.choose(outline, add),
      (text) => (this.said.textContent = text),
    )
    main.append(this.region.tools)
    this.view = h("div", { class: "map-page items-page" }, this.side, main, this.panel)
    this.canvas.addEventListener("keydown", (event) => this.key(event))
    this.listen()
  }

  private listen(): void {
    let pressed: Place | null = null
    const at = (event: MouseEvent): Place => {
      const { left, top } = this.canvas.getBoundingClientRect()
      return { x: event.clientX - left, y: event.clientY - top }
    }
    this.canvas.addEventListener("pointerdown", (event) => (pressed = at(event)))
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch" || !this.map) return
      const item = event.buttons ? null : (this.cloud?.at(at(event)) ?? null)
      this.canvas.classList.toggle("over", item !== null)
      this.hover(item)
    })
    this.canvas.addEventListener("pointerleave", () => this.hover(null))
    this.canvas.addEventListener("click", (event) => {
      const here = at(event)
      if (!pressed || Math.hypot(here.x - pressed.x, here.y - pressed.y) > 4) return
      const item = this.cloud?.at(here) ?? null
      if (item !== null && (event.shiftKey || event.ctrlKey || event.metaKey)) this.toggle(item)
      else this.select(item)
    })
  }

  async show(page: Page): Promise<void> {
    this.page = page
    if (!this.view.isConnected) {
      page.root.replaceChildren(
        h("h1", { id: HEADING, tabindex: -1, class: "visually-hidden" }, "Map of items"),
        this.view,
      )
      this.shownPanel = ""
    }
    const map = mapOf(page)
    try {
      if (this.map !== map) await this.load(map)
      this.concepts = await data.concepts(page.run)
      if (page.signal.aborted) return
      this.recolour()
      const asked = page.route.params.at
      if ((asked ?? "") !== this.cameraText()) this.cloud?.move(cameraIn(asked))
      await this.light()
    } catch (error) {
      if (page.signal.aborted) return
      this.map = null
      this.note.replaceChildren(failure(error, () => void this.show(this.page)))
      return
    }
    if (page.signal.aborted) return
    this.fromAddress(map)
    this.column()
    this.mark()
    this.fill()
  }

  private async load(map: ItemMap): Promise<void> {
    this.note.replaceChildren(loading("the map"))
    const [items, places] = await Promise.all([data.mapItems(map), data.places(map)])
    if (this.page.signal.aborted) return
    this.items = items
    this.places = places
    this.map = map
    this.litKey = ""
    this.lit = null
    this.hover(null)
    this.cloud ??= new Cloud(this.canvas, { moved: () => this.moved(), drawn: (whole) => this.drawn(whole) })
    this.cloud.load(places.x, places.y, map.images)
  }

  private recolour(): void {
    const style = getComputedStyle(document.documentElement)
    const value = (name: string) => style.getPropertyValue(name).trim()
    const [image, text, faint, ink, ground] = ["--image", "--text", "--edge", "--ink", "--ground"].map(value)
    this.cloud?.recolour({ image, text, faint, ink, ground } as Record<
      "image" | "text" | "faint" | "ink" | "ground",
      string
    >)
  }

  /** Look up the items of the concept in the address. */
  private async light(): Promise<void> {
    const { manifest, run, route, signal } = this.page
    const concept = Number(route.params.concept ?? NaN)
    const known = Number.isInteger(concept) && concept >= 0 && concept < run.concepts
    const key = known ? `${run.key} ${concept}` : ""
    if (key === this.litKey) return
    this.lit = null
    this.limit = ""
    if (known && this.map) {
      const found = await lit(manifest, run, this.items.id, this.map.images, concept, signal)
      this.lit = found.items
      this.limit = found.limit
    }
    this.litKey = key
  }

  private fromAddress(map: ItemMap): void {
    const { sel, pick } = this.page.route.params
    const item = sel === undefined ? NaN : Number(sel)
    this.selected = Number.isInteger(item) && item >= 0 && item < map.items ? item : null
    const [size, text] = (pick ?? "").split("_")
    if (!(this.overflow && pick === undefined))
      this.ticked = new Set(text && Number(size) === map.items ? decoded(text, map.items) : [])
  }

  private get chosen(): Chosen {
    const { page, items, places, concepts } = this
    return { page, map: this.map as ItemMap, items, places, concepts }
  }

  /** The left column: what is laid out, what is shown, which concept is lit. */
  private column(): void {
    const { manifest, run, route } = this.page
    const map = this.map as ItemMap
    const to = (params: Record<string, string>) => go({ ...here(), params: { ...here().params, ...params } })
    const choice = (label: string, name: string, options: Record<string, string>) => {
      const select = h(
        "select",
        {},
        Object.entries(options).map(([value, text]) =>
          h("option", { value, selected: value === (route.params[name] ?? "") }, text),
        ),
      )
      select.addEventListener("change", () => to({ [name]: select.value }))
      return h("label", { class: "field" }, label, select)
    }
    const hasCodes = manifest.maps.some(
      ({ model, by, sae }) => model === run.model && by === "codes" && sae === run.sae,
    )
    const input = h("input", {
      type: "number",
      min: 0,
      max: run.concepts - 1,
      value: route.params.concept ?? "",
      "aria-label": "Number of the concept whose items are highlighted",
      placeholder: "number",
    })
    const form = h(
      "form",
      { class: "light-form" },
      input,
      h("button", { class: "button", type: "submit" }, "Highlight"),
    )
    form.addEventListener("submit", (event) => {
      event.preventDefault()
      to({ concept: input.value })
    })
    const concept = this.litKey ? Number(route.params.concept) : null
    this.side.replaceChildren(
      choice("Laid out by", "by", { "": "embeddings", ...(hasCodes ? { codes: "codes" } : {}) }),
      choice("Shown", "show", { "": "images and captions", image: "images", text: "captions" }),
      h("h2", { class: "side-title" }, "Highlight a concept's items"),
      form,
      ...(concept === null
        ? [
            h(
              "p",
              { class: "muted small" },
              "The number is shown next to the concept's name; its page and its card on the map of concepts link here.",
            ),
          ]
        : [
            h("p", {}, conceptLink(run, this.concepts, concept)),
            h(
              "button",
              { class: "button quiet", type: "button", onclick: () => to({ concept: "" }) },
              "Highlight none",
            ),
          ]),
      h(
        "button",
        { class: "button", type: "button", onclick: () => this.choose(null, false) },
        "Select all in the window",
      ),
      aboutLayout(map),
    )
  }

  /** Set how every item is drawn, and say what is shown. */
  private mark(): void {
    const map = this.map as ItemMap
    const { show } = this.page.route.params
    const marks = new Uint8Array(map.items)
    if (this.lit) {
      marks.fill(FAINT)
      for (const item of this.lit) marks[item] = LIT
    }
    for (const item of this.ticked) marks[item] = TICKED
    if (show === "image") marks.fill(HIDDEN, map.images)
    if (show === "text") marks.fill(HIDDEN, 0, map.images)
    this.cloud?.mark(marks)
    const texts = map.items - map.images
    const parts = [
      show === "text" ? "" : counted(map.images, "image"),
      show === "image" ? "" : counted(texts, "caption"),
      this.lit ? `${count(this.lit.length)} highlighted${this.limit ? ` (${this.limit})` : ""}` : "",
    ]
    this.note.replaceChildren(parts.filter(Boolean).join(", "))
  }

  private cameraText(): string {
    const { x, y, ratio } = this.cloud?.camera() ?? HOME
    const home = Math.abs(x) + Math.abs(y) + Math.abs(ratio - 1) < 1e-3
    return home ? "" : [x, y, ratio].map((value) => value.toFixed(4)).join(",")
  }

  private moved(): void {
    this.hover(null)
    this.thumbs.replaceChildren()
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.view.isConnected && note({ at: this.cameraText() }), 300)
    this.rest()
  }

  private drawn(whole: boolean): void {
    this.placeRing()
    if (!whole || !this.map) return
    if (!performance.getEntriesByName("explorer:items").length) performance.mark("explorer:items")
    this.rest()
  }

  private rest(): void {
    clearTimeout(this.resting)
    this.resting = setTimeout(() => void this.pictures().catch(() => this.thumbs.replaceChildren()), 250)
  }

  /** Put thumbnails over the images in the window, where they do not overlap. */
  private async pictures(): Promise<void> {
    const map = this.map
    const camera = this.cloud?.camera()
    if (!map || !camera || !this.page.manifest.items || map.images * camera.ratio ** 2 > SEARCHED) return
    const images = (this.cloud?.inWindow() ?? []).filter((item) => item < map.images)
    if (images.length > SEARCHED / 10) return
    const taken = new Set<string>()
    const chosen = images.filter((item) => {
      const at = this.cloud?.place(item)
      if (!at) return false
      const cell = (dx: number, dy: number) => `${Math.round(at.x / THUMB) + dx},${Math.round(at.y / THUMB) + dy}`
      if ([-1, 0, 1].some((dx) => [-1, 0, 1].some((dy) => taken.has(cell(dx, dy))))) return false
      taken.add(cell(0, 0))
      return true
    })
    const shown = await Promise.all(
      chosen.slice(0, THUMBS).map(async (item) => ({
        item,
        picture: await thumbnail(this.items.id[item] as number, true, true),
      })),
    )
    if (this.map !== map || JSON.stringify(camera) !== JSON.stringify(this.cloud?.camera())) return
    this.thumbs.replaceChildren(
      ...shown.flatMap(({ item, picture }) => {
        const at = this.cloud?.place(item)
        if (!at || picture.classList.contains("none")) return []
        picture.classList.add("on-map")
        return styled(picture, { transform: `translate(${at.x - THUMB / 2}px, ${at.y - THUMB / 2}px)` })
      }),
    )
  }

  private hover(item: number | null): void {
    if (item === this.hovered) return
    this.hovered = item
    this.placeRing()
    this.card.hidden = item === null
    if (item === null) return
    this.card.replaceChildren(h("div", { class: "card" }, itemCard(this.chosen, item, false)))
    const at = this.cloud?.place(item)
    if (!at) return
    const { clientWidth, clientHeight } = this.canvas
    const x = at.x + 280 < clientWidth ? at.x + 14 : Math.max(4, at.x - 278)
    const y = Math.max(4, Math.min(clientHeight - 250, at.y - 60))
    this.card.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`
  }

  private placeRing(): void {
    const item = this.hovered ?? this.selected
    const at = item === null ? null : this.cloud?.place(item)
    this.ring.hidden = !at
    if (!at) return
    const size = 2 * at.radius + 10
    this.ring.style.width = this.ring.style.height = `${size}px`
    this.ring.style.transform = `translate(${at.x - size / 2}px, ${at.y - size / 2}px)`
  }

  /** Show an item in the panel, as a step in the history. */
  private select(item: number | null): void {
    this.hover(null)
    if (item === this.selected) return
    go({ ...here(), params: { ...here().params, sel: item === null ? "" : String(item) } })
  }

  /** Select the items within an outline, or all in the window. */
  private choose(outline: readonly Place[] | null, add: boolean): void {
    if (!this.cloud || !this.map) return
    const found = outline ? this.cloud.inside(outline) : this.cloud.inWindow()
    this.take(new Set(add ? [...this.ticked, ...found] : found))
  }

  private toggle(item: number): void {
    const next = new Set(this.ticked)
    if (!next.delete(item)) next.add(item)
    this.take(next)
  }

  private take(next: Set<number>): void {
    const map = this.map as ItemMap
    this.ticked = next
    const text = encoded([...next].sort((a, b) => a - b))
    this.overflow = next.size > 0 && text === ""
    note({ pick: text ? `${map.items}_${text}` : "" })
    this.said.textContent = `${counted(next.size, "item")} selected`
    this.mark()
    this.fill()
  }

  /** Fill the panel with the item and the selection. */
  private fill(): void {
    const key = `${this.page.run.key} ${this.map?.file} ${this.selected} ${[...this.ticked].join()}`
    const opens = this.selected !== null || this.ticked.size > 0
    this.panel.hidden = !opens
    this.view.classList.toggle("with-panel", opens)
    this.placeRing()
    if (key === this.shownPanel) return
    this.shownPanel = key
    const numbers = [...this.ticked].sort((a, b) => a - b)
    const selected = this.selected
    const close = (label: string, act: () => void) =>
      h("button", { class: "icon-button", type: "button", "aria-label": label, title: label, onclick: act }, "×")
    this.panel.replaceChildren(
      ...(selected === null
        ? []
        : [
            h(
              "header",
              { class: "panel-head" },
              h("h2", {}, "Item"),
              close("Close the item", () => this.select(null)),
            ),
            itemCard(this.chosen, selected, true),
            h(
              "p",
              {},
              h(
                "button",
                { class: "button", type: "button", onclick: () => this.toggle(selected) },
                this.ticked.has(selected) ? "Take it out of the selection" : "Add it to the selection",
              ),
            ),
          ]),
      ...(numbers.length
        ? [
            h(
              "header",
              { class: "panel-head" },
              h("h2", { class: "visually-hidden" }, "Selection"),
              close("Clear the selection", () => this.take(new Set())),
            ),
            this.overflow &&
              h(
                "p",
                { class: "notice small" },
                "The selection is too long for the address of the page (4,000 characters). A copied address opens the map without it; CSV keeps it.",
              ),
            selectionPanel(this.chosen, numbers, (item) => this.toggle(item)),
          ].filter((part) => part !== false)
        : []),
    )
  }

  private key(event: KeyboardEvent): void {
    const cloud = this.cloud
    if (!cloud || !this.map || event.altKey || event.ctrlKey || event.metaKey) return
    if (this.region.key(event)) {
      event.preventDefault()
      return
    }
    const current = this.hovered ?? this.selected
    const act = {
      "+": () => cloud.zoom(1 / 1.6),
      "=": () => cloud.zoom(1 / 1.6),
      "-": () => cloud.zoom(1.6),
      "0": () => cloud.move(HOME),
      Enter: () => this.hovered !== null && this.select(this.hovered),
      " ": () => current !== null && this.toggle(current),
      Escape: () => (this.hovered === null ? this.select(null) : this.hover(null)),
    }[event.key]
    const next = act ? null : this.step(current, event.key)
    if (!act && next === null) return
    event.preventDefault()
    act?.()
    if (next === null) return
    cloud.reveal(next)
    this.hover(next)
    const modality = modalityOf(this.map, next)
    const id = this.items.id[next] as number
    void wordsOf(modality, id).then(
      (words) => (this.said.textContent = `${modality === "image" ? "Image" : "Caption"}: ${words ?? id}`),
      () => (this.said.textContent = `${modality} ${id}`),
    )
  }

  /** The item to which an arrow key leads: the nearest within 45 degrees of the key's direction. */
  private step(from: number | null, key: string): number | null {
    const arrow = ARROWS[key]
    const cloud = this.cloud
    if (!arrow || !cloud) return null
    const [dx, dy] = arrow
    const start = (from === null ? null : cloud.place(from)) ?? {
      x: this.canvas.clientWidth / 2,
      y: this.canvas.clientHeight / 2,
    }
    let nearest: number | null = null
    let least = Infinity
    for (const item of cloud.inWindow()) {
      const at = item === from ? null : cloud.place(item)
      if (!at) continue
      const [x, y] = [at.x - start.x, at.y - start.y]
      const along = x * dx + y * dy
      const aside = Math.abs(x * dy) + Math.abs(y * dx)
      const distance = from === null ? Math.hypot(x, y) : along + 2 * aside
      if ((from !== null && (along <= 1 || aside > along)) || distance >= least) continue
      least = distance
      nearest = item
    }
    return nearest
  }
}

function cameraIn(text: string | undefined): Camera {
  const [x, y, ratio] = (text ?? "").split(",").map(Number)
  return text && [x, y, ratio].every(Number.isFinite) && (ratio as number) > 0 ? ({ x, y, ratio } as Camera) : HOME
}

function aboutLayout({ by, layout, fitted, items, sae, seed }: ItemMap): HTMLElement {
  const way = {
    umap: `A UMAP of all ${count(items)} items`,
    "umap-sample": `A UMAP of ${count(fitted)} random items; the other ${count(items - fitted)} are placed at their five nearest of these`,
    pca: "The first two principal axes",
  }[layout]
  const gap =
    by === "embeddings"
      ? "The mean of each modality is subtracted, and each item has neighbours of both modalities, so that the modality gap does not split the map in two."
      : `Items with the same concepts (${sae}, seed ${seed}) are neighbours. The modality gap is not removed: images and captions lie together where they share concepts.`
  return h(
    "p",
    { class: "muted small layout-note" },
    `${way}. ${gap} Neighbours are meaningful; distances and gaps are not.`,
  )
}

function legend(): HTMLElement {
  return h(
    "ul",
    { class: "legend", "aria-label": "Legend" },
    h("li", {}, h("span", { class: "dot of-image", "aria-hidden": "true" }), "image"),
    h("li", {}, h("span", { class: "dot of-text", "aria-hidden": "true" }), "caption"),
  )
}
