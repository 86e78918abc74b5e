// Notices in place of content: it is loading, there is none, or it could not be read.

import { type Child, h } from "../dom"
import { DataError } from "../data"
import type { Need } from "../views"

/** Grey shapes in the place of content that is loading; announced once to screen readers. */
export function loading(content: string): HTMLElement {
  return h(
    "div",
    { class: "loading", role: "status" },
    h("span", { class: "loading-text" }, `Loading ${content}…`),
    h("span", { class: "shimmer", "aria-hidden": "true" }),
    h("span", { class: "shimmer short", "aria-hidden": "true" }),
  )
}

/** A notice that there is nothing to show, with the reason. */
export function empty(title: string, ...more: Child[]): HTMLElement {
  return h("div", { class: "notice" }, h("p", { class: "notice-title" }, title), h("p", {}, ...more))
}

/** An error in words, with a button to try again. */
export function failure(error: unknown, again?: () => void): HTMLElement {
  const message = error instanceof DataError ? error.message : `The page failed: ${String(error)}`
  return h(
    "div",
    { class: "notice bad", role: "alert" },
    h("p", { class: "notice-title" }, "This could not be shown"),
    h("p", {}, message),
    again && h("p", {}, h("button", { class: "button", type: "button", onclick: again }, "Try again")),
  )
}

/** Shown in place of images and captions that the site was published without. */
export function withheld(content: string): HTMLElement {
  return h(
    "p",
    { class: "muted" },
    `${content} are not part of this site: it was published without captions and images.`,
  )
}

/** Shown in place of a view that needs the live server, or images and captions, on a site without them. */
export function unmet(title: string, need: Need): HTMLElement {
  if (need === "items")
    return empty(`The view ${title} needs captions and images`, "This site was published without captions and images.")
  if (need === "files")
    return empty(
      `The view ${title} is part of published sites`,
      h("code", {}, "bridgescope publish"),
      " writes SAEs, tables and pages into one folder.",
    )
  return empty(
    `The view ${title} needs the live explorer`,
    "This is a published site. ",
    h("code", {}, "bridgescope explore"),
    " serves the same views over a store, with the study's catalog and models.",
  )
}
