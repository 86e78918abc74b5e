// What a reader sees while there is nothing else to see: waiting, nothing found, something wrong.

import { type Child, h } from "../dom"
import { DataError } from "../data"
import type { Need } from "../views"

/** Grey shapes where content will be; announced once. */
export function loading(what: string): HTMLElement {
  return h(
    "div",
    { class: "loading", role: "status" },
    h("span", { class: "loading-text" }, `Loading ${what}…`),
    h("span", { class: "shimmer", "aria-hidden": "true" }),
    h("span", { class: "shimmer short", "aria-hidden": "true" }),
  )
}

/** Nothing to show, why, and what can be done. */
export function empty(title: string, ...more: Child[]): HTMLElement {
  return h("div", { class: "notice" }, h("p", { class: "notice-title" }, title), h("p", {}, ...more))
}

/** Something failed: what, and a way to try again. */
export function failure(error: unknown, again?: () => void): HTMLElement {
  const message = error instanceof DataError ? error.message : `The page has a fault: ${String(error)}`
  return h(
    "div",
    { class: "notice bad", role: "alert" },
    h("p", { class: "notice-title" }, "This could not be shown"),
    h("p", {}, message),
    again && h("p", {}, h("button", { class: "button", type: "button", onclick: again }, "Try again")),
  )
}

/** Said wherever pictures and captions would be, when a site was published without them. */
export function withheld(what: string): HTMLElement {
  return h("p", { class: "muted" }, `${what} are not part of this site: it was published without captions and images.`)
}

/** Shown in place of a view whose need this site does not meet. */
export function unmet(title: string, need: Need): HTMLElement {
  if (need === "items")
    return empty(`The view ${title} needs captions and images`, "This site was published without captions and images.")
  return empty(
    `The view ${title} needs the live explorer`,
    "This is a published site. ",
    h("code", {}, "bridgescope explore"),
    " serves the same views over a store, with the study's catalog and models.",
  )
}
