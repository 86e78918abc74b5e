// The fragment of the address holds the state of the page: #/view/argument?run=model/sae/seed&name=value. A static host
// needs no rewrite rule for it, and a copied address opens the same view.

import { FIRST_VIEW, type ViewName, viewNames } from "./views"

export interface Route {
  view: ViewName
  argument: string
  run: string | null
  params: Record<string, string>
}

/** The route that an address states; an unknown view name stands for the first view. */
export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s)
  const [first = "", ...rest] = path.split("/")
  const view = viewNames.find((name) => name === first) ?? FIRST_VIEW
  const params: Record<string, string> = {}
  for (const [name, value] of new URLSearchParams(query)) params[name] = value
  const { run = null, ...others } = params
  return { view, argument: readable(rest.join("/")), run, params: others }
}

function readable(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (error) {
    if (error instanceof URIError) return text // a lone "%", typed by hand
    throw error
  }
}

/** The address of a view; empty parameters are left out. */
export function href(route: Pick<Route, "view"> & Partial<Route>): string {
  const query = new URLSearchParams()
  if (route.run) query.set("run", route.run)
  for (const [name, value] of Object.entries(route.params ?? {})) if (value !== "") query.set(name, value)
  const text = query.toString().replaceAll("%2F", "/").replaceAll("%2C", ",")
  const path = route.argument
    ? `${route.view}/${encodeURIComponent(route.argument).replaceAll("%2C", ",")}`
    : route.view
  return `#/${path}${text ? `?${text}` : ""}`
}

/** The route of the present address. */
export function here(): Route {
  return parse(location.hash)
}

let stepping = false
document.addEventListener(
  "click",
  ({ target }) => {
    if (target instanceof Element && target.closest('a[href^="#/"]')) stepping = true
  },
  { capture: true },
)

/** Whether the address changed by a link or a choice, not by Back or Forward. Call it once per change. */
export function stepped(): boolean {
  const answer = stepping
  stepping = false
  return answer
}

/** Go to a view, as a step in the history: Back returns from it. */
export function go(route: Pick<Route, "view"> & Partial<Route>): void {
  stepping = true
  location.hash = href(route)
}

/** Write the state of the present view into its address, without a step in the history and without a new drawing. */
export function note(params: Record<string, string>): void {
  const route = here()
  history.replaceState(history.state, "", href({ ...route, params: { ...route.params, ...params } }))
  remember()
}

let left: Route | null = null

/** Keep the present route of the map, for links that lead back to it. */
export function remember(): void {
  const route = here()
  if (route.view === "map") left = route
}

/**
 * The address of a run's map, with the camera and filters that the map last had. The selected concept is kept only if
 * the map showed the same run.
 */
export function mapHref(run: string, params: Record<string, string> = {}): string {
  const { sel = "", ...kept } = left?.params ?? {}
  return href({ view: "map", run, params: { ...kept, ...(left?.run === run ? { sel } : {}), as: "", ...params } })
}
