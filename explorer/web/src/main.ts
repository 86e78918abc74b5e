// The start of the page: reads the manifest, builds the shell, and draws the view that the address names, now and at
// every change of the address.

import "./style/base.css"
import "./style/parts.css"
import "./style/shell.css"
import "./style/map.css"
import "./style/items.css"
import "./style/concept.css"
import "./style/lists.css"
import "./style/study.css"
import type { Manifest } from "./contract"
import * as data from "./data"
import { h } from "./dom"
import { HEADING, runOf } from "./page"
import { watchDownloads } from "./parts/downloads"
import { empty, failure, loading, unmet } from "./parts/notice"
import { here, href, remember, stepped } from "./route"
import { type Shell, shell } from "./shell"
import { onScheme } from "./theme"
import { type ViewName, entryOf, viewNames } from "./views"

const KEPT: ReadonlySet<ViewName> = new Set(["map", "items"]) // views that update what they drew
const AHEAD_AFTER = 500 // milliseconds after the first view is drawn
const NARROW = 760 // pixels of a window that is taken for a phone's: there, nothing is loaded before it is needed

const scrolled = new Map<string, number>() // scroll position of each address, for Back
let leaving = new AbortController()
let shown: ViewName | null = null

async function draw(manifest: Manifest, around: Shell, forward: boolean): Promise<void> {
  leaving.abort()
  leaving = new AbortController()
  const { signal } = leaving
  const route = here()
  const run = runOf(manifest, route.run) ?? (route.run === null ? manifest.runs[0] : null)
  const { main } = around
  if (!run) {
    main.className = "page"
    main.replaceChildren(unknownRun(manifest, route.run))
    shown = null
    return
  }
  remember()
  around.update(route.view, run)
  const same = shown === route.view
  const first = shown === null
  shown = route.view
  if (!KEPT.has(route.view) || !same) main.className = `page view-${route.view}`
  if (!same) main.replaceChildren(loading("the view"))
  const entry = entryOf(route.view)
  const root = same ? ((main.firstElementChild as HTMLElement | null) ?? main) : h("div", { class: "view" })
  if (!same) main.replaceChildren(root)
  try {
    if (entry.needs && !manifest[entry.needs]) root.replaceChildren(unmet(entry.title, entry.needs))
    else await (await entry.load())({ manifest, run, route, root, signal })
  } catch (error) {
    if (signal.aborted) return
    root.replaceChildren(failure(error, () => void draw(manifest, around, true)))
  }
  if (signal.aborted) return
  const heading = document.getElementById(HEADING)
  document.title = [heading?.textContent?.slice(0, 80) ?? entry.title, manifest.study, "bridgescope"].join(" · ")
  if (!same || !KEPT.has(route.view)) {
    scrollTo(0, forward ? 0 : (scrolled.get(location.hash) ?? 0))
    if (!first) heading?.focus({ preventScroll: true })
  }
}

function unknownRun(manifest: Manifest, asked: string | null): HTMLElement {
  if (!manifest.runs.length)
    return empty("This study has no SAE yet", "Its run trained no SAE. Open the explorer again after a run that did.")
  return empty(
    `This study has no SAE ${asked}`,
    "Available: ",
    manifest.runs.flatMap((run, at) => [
      at ? ", " : "",
      h("a", { href: href({ view: "map", run: run.key }) }, run.key),
    ]),
    ".",
  )
}

async function start(): Promise<void> {
  document.body.replaceChildren(h("main", { class: "page" }, loading("the study")))
  let manifest: Manifest
  try {
    manifest = await data.manifest()
  } catch (error) {
    document.body.replaceChildren(
      h(
        "main",
        { class: "page" },
        failure(error, () => void start()),
      ),
    )
    return
  }
  const around = shell(manifest)
  watchDownloads(around.main)
  history.scrollRestoration = "manual"
  addEventListener("scroll", () => scrolled.set(location.hash, scrollY), { passive: true })
  addEventListener("hashchange", () => void draw(manifest, around, stepped()))
  // Script sets the colours of dots, so the view is drawn again; the map changes its colours itself.
  onScheme(() => shown !== "map" && void draw(manifest, around, false))
  await draw(manifest, around, true)
  if (innerWidth > NARROW) setTimeout(() => void ahead(manifest), AHEAD_AFTER)
}

/** Load the item index, bridges and the code of all views in advance. A view that needs a file reports its failure. */
async function ahead(manifest: Manifest): Promise<void> {
  const run = runOf(manifest, here().run) ?? manifest.runs[0]
  await Promise.allSettled([
    manifest.items ? data.itemIndex() : null,
    run ? data.bridges(run) : null,
    ...viewNames.map((name) => entryOf(name).load()),
  ])
}

void start()
