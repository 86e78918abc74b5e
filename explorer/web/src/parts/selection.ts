// A selection of concepts or items: its short form in the address, and the ways to take it away.

import * as data from "../data"
import { h } from "../dom"
import type { Page } from "../page"
import { href } from "../route"
import { type Table, save, saveCsv } from "./download"
import { failure } from "./notice"

export const LONGEST = 4000 // characters of a selection in an address; browsers and mail programs cut longer ones

/**
 * Numbers in ascending order as text: the differences to the number before in base 36, repeated ones with their count.
 * [3, 4, 5, 9] is "3.1*2.4". Empty when the text would be longer than an address may hold.
 */
export function encoded(numbers: readonly number[]): string {
  const parts: string[] = []
  let before = 0
  for (let at = 0; at < numbers.length;) {
    const step = (numbers[at] as number) - before
    let end = at
    while (end < numbers.length && (numbers[end] as number) - (end ? (numbers[end - 1] as number) : 0) === step) end++
    parts.push(step.toString(36) + (end - at > 1 ? `*${end - at}` : ""))
    before = numbers[end - 1] as number
    at = end
  }
  const text = parts.join(".")
  return text.length <= LONGEST ? text : ""
}

/** The numbers below `limit` of such a text. */
export function decoded(text: string, limit: number): number[] {
  const numbers: number[] = []
  let last = 0
  for (const part of text.split(".")) {
    const [step, times = "1"] = part.split("*")
    const difference = parseInt(step ?? "", 36)
    for (let left = Math.min(Number(times), limit); left > 0; left--) {
      last += difference
      if (!(last >= 0 && last < limit)) return numbers
      numbers.push(last)
    }
  }
  return numbers
}

export interface Taken {
  /** Name of the files, without their ending. */
  name: string
  /** The statement that selects the same rows. */
  query: () => string
  table: () => Promise<Table>
}

/** Buttons that turn a selection into a query and into files. */
export function takeAway({ manifest, run, signal }: Page, { name, query, table }: Taken): HTMLElement {
  const said = h("div", { class: "take-away-said", role: "status" })
  const button = (label: string, act: () => Promise<void>) => {
    const element = h("button", { class: "button small-button", type: "button" }, label)
    element.addEventListener("click", () => {
      element.disabled = true
      said.replaceChildren()
      void act()
        .catch((error: unknown) => said.replaceChildren(failure(error)))
        .finally(() => (element.disabled = false))
    })
    return element
  }
  const asQuery = async () => {
    const text = query()
    if (manifest.live) {
      location.hash = href({ view: "sql", run: run.key, params: { q: text } })
      return
    }
    const shown = h("textarea", { rows: 5, readonly: true, "aria-label": "The selection as a query" })
    shown.value = text
    const copy = h("button", { class: "button small-button", type: "button" }, "Copy")
    copy.addEventListener("click", () => {
      shown.select()
      void navigator.clipboard?.writeText(text).then(
        () => (copy.textContent = "Copied"),
        () => (copy.textContent = "Press Ctrl + C"),
      )
    })
    said.replaceChildren(
      h("p", { class: "small muted" }, "For ", h("code", {}, "bridgescope sql"), " or the live explorer:"),
      shown,
      copy,
    )
    shown.focus()
  }
  const asParquet = async () => save(await data.sqlParquet(query(), signal), `${name}.parquet`)
  return h(
    "div",
    { class: "take-away" },
    button("As a query", asQuery),
    button("CSV", async () => saveCsv(await table(), `${name}.csv`)),
    manifest.live && button("Parquet", asParquet),
    said,
  )
}
