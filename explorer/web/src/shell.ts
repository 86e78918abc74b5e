// The bar around every view: name, links to the views, search, choice of the run, light or dark.

import type { Manifest, Run } from "./contract"
import * as data from "./data"
import { type Child, h, s, said } from "./dom"
import { runOf } from "./page"
import { conceptLink } from "./parts/concept"
import { matchOf } from "./parts/links"
import { itemHref } from "./parts/pictures"
import { go, here, href, mapHref } from "./route"
import { findCaptions, findConcepts } from "./search"
import { onScheme, scheme, toggleScheme } from "./theme"
import { type ViewName, entryOf, viewNames } from "./views"

const SUGGESTED = 6
const PAUSE = 120 // milliseconds without a keystroke before the search starts

export interface Shell {
  main: HTMLElement
  /** Mark the present view and run. */
  update: (view: ViewName, run: Run) => void
}

/** Build the bar and the place of the views. */
export function shell(manifest: Manifest): Shell {
  const links = viewNames.flatMap((view) => {
    const { title, inBar, needs } = entryOf(view)
    if (!inBar || (needs && !manifest[needs])) return []
    return [{ view, link: h("a", { href: href({ view }) }, title) }]
  })
  const runs = h("div", { class: "runs", role: "group", "aria-label": "SAE shown" })
  const main = h("main", { id: "main" })
  const header = h(
    "header",
    { class: "top" },
    h("a", { class: "skip", href: "#main", onclick: skip }, "Skip to the content"),
    h(
      "a",
      { class: "brand", href: href({ view: "map" }) },
      mark(),
      h("span", {}, "bridgescope"),
      h("span", { class: "study" }, said(manifest.study, 1)),
    ),
    h(
      "nav",
      { class: "views", "aria-label": "Views" },
      links.map(({ link }) => link),
    ),
    search(manifest),
    runs,
    themeButton(),
  )
  document.body.replaceChildren(header, main)
  return {
    main,
    update: (view, run) => {
      for (const { view: own, link } of links) {
        link.href = own === "map" ? mapHref(run.key) : href({ view: own, run: run.key })
        if (own === view) link.setAttribute("aria-current", "page")
        else link.removeAttribute("aria-current")
      }
      header.querySelector<HTMLAnchorElement>(".brand")?.setAttribute("href", mapHref(run.key))
      runs.replaceChildren(...runSwitch(manifest, run))
    },
  }
}

function skip(event: Event): void {
  event.preventDefault() // the link must not replace the fragment, which holds the state of the page
  const main = document.getElementById("main")
  main?.setAttribute("tabindex", "-1")
  main?.focus()
}

function mark(): SVGElement {
  return s(
    "svg",
    { class: "mark", viewBox: "0 0 32 32", width: 26, height: 26, "aria-hidden": "true" },
    s("path", { d: "M6 22C9.5 9 22.5 9 26 22", fill: "none" }),
    s("circle", { class: "from", cx: 6, cy: 22, r: 4.2 }),
    s("circle", { class: "to", cx: 26, cy: 22, r: 4.2 }),
  )
}

function themeButton(): HTMLElement {
  const button = h("button", { class: "icon-button theme", type: "button", onclick: toggleScheme })
  const draw = () => {
    const other = scheme() === "dark" ? "light" : "dark"
    button.setAttribute("aria-label", `Change to ${other}`)
    button.title = `Change to ${other}`
    button.replaceChildren(
      s(
        "svg",
        { viewBox: "0 0 20 20", width: 18, height: 18, "aria-hidden": "true" },
        s("circle", { cx: 10, cy: 10, r: 7, fill: "none", stroke: "currentColor", "stroke-width": 1.6 }),
        s("path", { d: "M10 3a7 7 0 0 1 0 14z", fill: "currentColor" }),
      ),
    )
  }
  onScheme(draw)
  draw()
  return button
}

/** Model, setting and seed of the run; each is a choice if there are several. A change keeps the view. */
function runSwitch(manifest: Manifest, run: Run): Child[] & Node[] {
  const distinct = <T>(values: T[]) => [...new Set(values)]
  const nearest = (wanted: Partial<Run>): Run => {
    const fits = (other: Run) => Object.entries(wanted).every(([name, value]) => other[name as keyof Run] === value)
    const near = (other: Run) =>
      Number(other.model === run.model) * 4 + Number(other.sae === run.sae) * 2 + Number(other.seed === run.seed)
    return manifest.runs.filter(fits).sort((a, b) => near(b) - near(a))[0] ?? run
  }
  const choice = <K extends "model" | "sae" | "seed">(name: K, label: string, options: Run[K][]) => {
    if (options.length < 2)
      return h("span", { class: "run-part" }, h("span", { class: "run-label" }, label), said(String(run[name]), 1))
    const select = h(
      "select",
      { "aria-label": label },
      options.map((value) => h("option", { value: String(value), selected: value === run[name] }, String(value))),
    )
    select.addEventListener(
      "change",
      () => void change(manifest, run, nearest({ [name]: options[select.selectedIndex] })),
    )
    return h("label", { class: "run-part" }, h("span", { class: "run-label" }, label), select)
  }
  const ofModel = manifest.runs.filter(({ model }) => model === run.model)
  return [
    choice("model", "model", distinct(manifest.runs.map(({ model }) => model))),
    choice("sae", "SAE", distinct(ofModel.map(({ sae }) => sae))),
    choice("seed", "seed", distinct(ofModel.filter(({ sae }) => sae === run.sae).map(({ seed }) => seed))),
  ]
}

/** Go to another SAE and keep the view and the camera. A concept is replaced with its match or partner there. */
async function change(manifest: Manifest, from: Run, to: Run): Promise<void> {
  const route = here()
  const { sel, concept, pick: _picked, ...params } = route.params
  if (route.view === "map" && sel !== undefined) {
    const match = await matchOf(manifest, from, to, Number(sel))
    go({ ...route, run: to.key, params: match === null ? params : { ...params, sel: String(match.concept) } })
  } else if (route.view === "concept" && /^\d+$/.test(route.argument)) {
    const match = await matchOf(manifest, from, to, Number(route.argument))
    // Without a counterpart the page says so, and where the reader came from.
    const known = { from: from.key, of: route.argument }
    if (match === null) go({ view: "concept", argument: "none", run: to.key, params: known })
    else go({ view: "concept", argument: String(match.concept), run: to.key, params: known })
  } else if (route.view === "compare" && concept !== undefined) {
    const match = await matchOf(manifest, from, to, Number(concept))
    go({ ...route, run: to.key, params: match === null ? params : { ...params, concept: String(match.concept) } })
  } else if (route.view === "pair") {
    const { without: _, ...others } = route.params // its concepts are those of the run that is left
    go({ ...route, run: to.key, params: others })
  } else {
    const { concept: _, ...others } = route.params
    const ofConcepts = route.view === "bridges" || route.view === "items"
    go({ ...route, run: to.key, params: ofConcepts ? others : route.params })
  }
}

function search(manifest: Manifest): HTMLElement {
  const results = h("div", { class: "suggestions", hidden: true })
  const input = h("input", {
    type: "search",
    "aria-label": "Search concepts and captions",
    placeholder: "Search concepts and captions",
    autocomplete: "off",
    maxlength: 200,
  })
  let timer = 0
  const close = () => {
    results.hidden = true
  }
  const look = async (): Promise<void> => {
    const query = input.value.trim()
    const run = runOf(manifest, here().run) ?? manifest.runs[0]
    if (!query || !run) return close()
    try {
      const content = await suggestions(manifest, run, query)
      if (input.value.trim() !== query) return
      results.replaceChildren(...content)
    } catch (error) {
      results.replaceChildren(
        h("p", { class: "muted" }, error instanceof data.DataError ? error.message : String(error)),
      )
    }
    results.hidden = false
  }
  input.addEventListener("input", () => {
    clearTimeout(timer)
    timer = setTimeout(() => void look(), PAUSE)
  })
  input.addEventListener("focus", () => void look())
  const form = h("form", { class: "search", role: "search" }, input, results)
  form.addEventListener("submit", (event) => {
    event.preventDefault()
    const query = input.value.trim()
    if (!query) return
    clearTimeout(timer)
    close()
    go({ view: "search", run: here().run, params: { q: query } })
  })
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      close()
      input.focus()
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const stops: HTMLElement[] = [input, ...results.querySelectorAll<HTMLElement>("a")]
      const at = stops.indexOf(document.activeElement as HTMLElement) + (event.key === "ArrowDown" ? 1 : -1)
      if (results.hidden || !stops[at]) return
      event.preventDefault()
      stops[at].focus()
    }
  })
  form.addEventListener("focusout", (event) => {
    if (!form.contains(event.relatedTarget as Node | null)) close()
  })
  addEventListener("hashchange", close)
  return form
}

async function suggestions(manifest: Manifest, run: Run, query: string): Promise<HTMLElement[]> {
  const [concepts, words, captions] = await Promise.all([
    data.concepts(run),
    data.words(run),
    manifest.items ? data.captions() : null,
  ])
  const matching = findConcepts(query, concepts, words)
  const texts = captions ? findCaptions(query, captions, SUGGESTED) : { at: [], total: 0 }
  if (!matching.length && !texts.total)
    return [h("p", { class: "muted" }, "No concept and no caption has these words.")]
  return [
    h("p", { class: "group" }, `Concepts (${matching.length})`),
    h(
      "ul",
      {},
      matching.slice(0, SUGGESTED).map((concept) => h("li", {}, conceptLink(run, concepts, concept))),
    ),
    h("p", { class: "group" }, `Captions (${texts.total})`),
    h(
      "ul",
      {},
      texts.at.map((at) =>
        h(
          "li",
          {},
          h("a", { href: itemHref(run, "text", captions?.id[at] as number) }, said(captions?.caption[at] ?? "", 1)),
        ),
      ),
    ),
    h(
      "p",
      { class: "all" },
      h("a", { href: href({ view: "search", run: run.key, params: { q: query } }) }, "All results"),
    ),
  ]
}
