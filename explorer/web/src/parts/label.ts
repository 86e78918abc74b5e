// Live: the form in which a user gives a concept a label, or removes it.

import * as data from "../data"
import { h } from "../dom"
import type { Page } from "../page"
import { failure } from "./notice"

const LONGEST = 80 // characters, as the server allows

/** The form; `changed` draws the page again. */
export function labelForm({ manifest, run, signal }: Page, concept: number, label: string, changed: () => void) {
  if (!manifest.live) return null
  const input = h("input", { type: "text", id: "user-label", maxlength: LONGEST, autocomplete: "off" })
  input.value = label
  const notice = h("div", { role: "status" })
  const send = async (text: string) => {
    try {
      await data.setLabel(run, concept, text, signal)
      if (!signal.aborted) changed()
    } catch (error) {
      if (!signal.aborted) notice.replaceChildren(failure(error))
    }
  }
  const submit = (event: Event) => {
    event.preventDefault()
    void send(input.value)
  }
  return h(
    "details",
    { class: "label-form", open: label !== "" },
    h("summary", {}, label ? "Your label" : "Give it a label of your own"),
    h(
      "form",
      { onsubmit: submit },
      h("label", { for: "user-label" }, "Label"),
      input,
      h("button", { class: "button", type: "submit" }, "Save"),
      label && h("button", { class: "button quiet", type: "button", onclick: () => void send("") }, "Remove it"),
    ),
    notice,
    h(
      "p",
      { class: "muted small" },
      "It replaces the automatic name, and is kept in the store. ",
      h("code", {}, "bridgescope publish --labels"),
      " publishes it too.",
    ),
  )
}
