// Live only: runs a read-only statement on the study's catalog, shows its answer as a table or saves it as CSV, and lists
// the catalog's views with their columns.

import type { Catalog, SqlAnswer } from "../contract"
import * as data from "../data"
import { clip, h } from "../dom"
import { count } from "../format"
import { HEADING, type Page } from "../page"
import { save } from "../parts/download"
import { failure, loading } from "../parts/notice"
import { note } from "../route"

const SHOWN = 500

/** Draw the prompt; a statement in the address fills it and is run at once. */
export async function sqlView(page: Page): Promise<void> {
  const { manifest, route, root, signal } = page
  root.replaceChildren(loading("the catalog"))
  const catalog = await data.catalog(manifest)
  if (signal.aborted) return
  const first = catalog.examples[0]?.query ?? "FROM concepts LIMIT 10"
  const query = h("textarea", { id: "sql", rows: 6, spellcheck: "false", autocapitalize: "off", autocomplete: "off" })
  query.value = route.params.q ?? first
  const ask = h("button", { class: "button primary", type: "button" }, "Ask")
  const stop = h("button", { class: "button", type: "button", hidden: true }, "Stop")
  const csv = h("button", { class: "button", type: "button" }, "Download CSV")
  const parquet = h("button", { class: "button", type: "button" }, "Download Parquet")
  const answer = h("div", { class: "answer", role: "status" })
  let asking: AbortController | null = null

  const during = async (work: (aborted: AbortSignal) => Promise<void>) => {
    asking?.abort()
    const mine = (asking = new AbortController())
    const either = AbortSignal.any([mine.signal, signal])
    note({ q: query.value === first ? "" : query.value })
    ask.disabled = csv.disabled = parquet.disabled = true
    stop.hidden = false
    answer.setAttribute("aria-busy", "true")
    try {
      await work(either)
    } catch (error) {
      if (!either.aborted) answer.replaceChildren(failure(error))
      else if (!signal.aborted) answer.replaceChildren(h("p", { class: "muted" }, "Stopped."))
    }
    ask.disabled = csv.disabled = parquet.disabled = false
    stop.hidden = true
    answer.removeAttribute("aria-busy")
  }
  const run = () => during(async (aborted) => answer.replaceChildren(...table(await data.sql(query.value, aborted))))
  ask.addEventListener("click", () => void run())
  stop.addEventListener("click", () => asking?.abort())
  csv.addEventListener(
    "click",
    () => void during(async (aborted) => save(await data.sqlCsv(query.value, aborted), "answer.csv")),
  )
  parquet.addEventListener(
    "click",
    () => void during(async (aborted) => save(await data.sqlParquet(query.value, aborted), "answer.parquet")),
  )
  query.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return
    event.preventDefault()
    void run()
  })
  root.replaceChildren(
    h("h1", { id: HEADING, tabindex: -1 }, "SQL"),
    h(
      "p",
      { class: "lead" },
      "One read-only statement on the study's catalog: SELECT, FROM, EXPLAIN, DESCRIBE or SHOW, in DuckDB's dialect.",
    ),
    h(
      "div",
      { class: "sql-page" },
      h(
        "div",
        { class: "sql-main" },
        examples(catalog, (text) => {
          query.value = text
          void run()
        }),
        h("label", { for: "sql", class: "visually-hidden" }, "Statement"),
        query,
        h(
          "p",
          { class: "sql-buttons" },
          ask,
          stop,
          csv,
          parquet,
          h("span", { class: "muted" }, "Ctrl + Enter runs the query"),
        ),
        answer,
      ),
      schema(catalog),
    ),
  )
  if (route.params.q !== undefined) await run()
}

function examples({ examples }: Catalog, use: (query: string) => void): HTMLElement | null {
  if (!examples.length) return null
  const buttons = examples.map(({ title, query }) =>
    h("button", { class: "chip", type: "button", title: clip(query, 400), onclick: () => use(query) }, title),
  )
  return h("div", { class: "chips", role: "group", "aria-label": "Examples" }, buttons)
}

function schema({ views, macros }: Catalog): HTMLElement {
  return h(
    "aside",
    { class: "schema", "aria-label": "Views and macros of the catalog" },
    h("h2", {}, "Views"),
    views.map((view) =>
      h(
        "details",
        {},
        h("summary", {}, h("code", {}, view.name)),
        h("p", { class: "small" }, view.purpose),
        h(
          "dl",
          {},
          view.columns.map(({ name, type, doc }) =>
            h(
              "div",
              {},
              h("dt", {}, h("code", {}, name), h("span", { class: "type" }, type.toLowerCase())),
              h("dd", {}, doc),
            ),
          ),
        ),
      ),
    ),
    macros.length > 0 && h("h2", {}, "Macros"),
    macros.length > 0 &&
      h("p", {}, "A macro is a function that returns a table: ", h("code", {}, "FROM name(arguments)"), "."),
    macros.map((macro) =>
      h(
        "details",
        { class: "macro" },
        h("summary", {}, h("code", {}, macro.name)),
        h("p", { class: "small" }, h("code", {}, macro.call)),
        h("p", { class: "small" }, macro.purpose),
        macro.inputs && h("p", { class: "macro-part" }, h("b", {}, "Reads "), macro.inputs),
        macro.columns && h("p", { class: "macro-part" }, h("b", {}, "Returns "), macro.columns),
      ),
    ),
  )
}

function table(answer: SqlAnswer): HTMLElement[] {
  const { columns, rows, truncated, seconds } = answer
  const summary = `${count(rows.length)} rows${truncated ? ", cut at the limit" : ""} in ${seconds.toFixed(2)} s`
  const shown = rows.slice(0, SHOWN)
  const write = columns.map((_, at) => writer(rows.map((row) => row[at])))
  const numeric = columns.map(({ type }) => /INT|DOUBLE|FLOAT|DECIMAL|REAL/i.test(type) && !type.includes("["))
  return [
    h(
      "p",
      { class: "muted" },
      rows.length > SHOWN ? `${summary}; the first ${SHOWN} are shown, the CSV has all` : summary,
    ),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Answer", "data-download": "own" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            columns.map(({ name, type }, at) =>
              h("th", { scope: "col", class: numeric[at] ? "n" : "", title: type }, name),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          shown.map((row) =>
            h(
              "tr",
              {},
              row.map((value, at) => h("td", { class: numeric[at] ? "n" : "" }, cell(value, write[at] as Writer))),
            ),
          ),
        ),
      ),
    ),
  ]
}

type Writer = (value: number) => string

const FIGURES = 5 // significant digits of the largest number of a column

/**
 * How the numbers of a column are written: with one number of decimals, so that they line up. The largest has FIGURES
 * significant digits; a number that would be 0 then has an exponent. Whole numbers have no decimals.
 */
function writer(values: readonly unknown[]): Writer {
  const numbers = values.filter((value): value is number => typeof value === "number")
  const whole = numbers.every(Number.isInteger)
  const largest = Math.max(0, ...numbers.map(Math.abs))
  const decimals = whole || largest === 0 ? 0 : Math.max(0, Math.min(8, FIGURES - 1 - Math.floor(Math.log10(largest))))
  return (value) => {
    if (whole) return String(value)
    const text = value.toFixed(decimals)
    return value !== 0 && Number(text) === 0 ? value.toExponential(2) : text
  }
}

function cell(value: unknown, write: Writer): HTMLElement | string {
  if (value === null || value === undefined) return h("span", { class: "muted" }, "NULL")
  if (typeof value === "number") return h("span", { title: String(value) }, write(value))
  return h(
    "bdi",
    { dir: "auto", class: "said clamp clamp-3 cell" },
    typeof value === "object" ? JSON.stringify(value) : String(value),
  )
}
