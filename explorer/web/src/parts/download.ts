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
