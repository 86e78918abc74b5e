// Files that the page makes for the reader: tables as CSV.

import { h } from "../dom"

export interface Table {
  columns: readonly string[]
  rows: readonly (readonly unknown[])[]
}

/** A table as CSV with a header; null is an empty field. */
export function csv({ columns, rows }: Table): string {
  const field = (value: unknown) => {
    const text = value === null || value === undefined ? "" : String(value)
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
  }
  return [columns, ...rows].map((row) => row.map(field).join(",")).join("\n") + "\n"
}

/** Let the reader save a file. */
export function save(blob: Blob, name: string): void {
  const address = URL.createObjectURL(blob)
  h("a", { href: address, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(address), 60_000)
}

export function saveCsv(table: Table, name: string): void {
  save(new Blob([csv(table)], { type: "text/csv;charset=utf-8" }), name)
}

/** The buttons of downloads below a table or a chart: for each kind of file, what its button does. */
export function downloads(kinds: readonly (readonly [string, () => void])[], what: string): HTMLElement {
  return h(
    "p",
    { class: "downloads" },
    kinds.map(([kind, act]) =>
      h(
        "button",
        { class: "as-download", type: "button", "aria-label": `Download this ${what} as ${kind}`, onclick: act },
        kind,
      ),
    ),
  )
}

/** Let the reader save all canvases of a map, one over the other on the page's ground, as they are now. */
export function saveMap(map: HTMLElement, name: string): void {
  const layers = [...map.querySelectorAll("canvas")].filter(({ width, height }) => width && height)
  const whole = document.createElement("canvas")
  whole.width = Math.max(...layers.map(({ width }) => width))
  whole.height = Math.max(...layers.map(({ height }) => height))
  const context = whole.getContext("2d")
  if (!context) throw new Error("this browser gives no canvas to draw the map on")
  context.fillStyle = getComputedStyle(document.body).backgroundColor
  context.fillRect(0, 0, whole.width, whole.height)
  for (const layer of layers) context.drawImage(layer, 0, 0, whole.width, whole.height)
  whole.toBlob((blob) => blob && save(blob, name), "image/png")
}
