// What the map's colours and sizes can show: a column of the concepts, a label, or the result of a query.

import { type Scheme, modalityColour, scaleColour, unknownColour } from "../colour"
import type { Concepts, Run } from "../contract"
import { DataError, sql } from "../data"
import { number, score } from "../format"

type Values = readonly (number | null)[]
type Kind = "modality" | "signed" | "up"

interface Column {
  title: string
  kind: Kind
  values: (concepts: Concepts) => Values
  /** Ends of the scale; without them, the 2nd and the 98th percentile. */
  ends?: readonly [number, number]
}

export const COLUMNS: Record<string, Column> = {
  modality: { title: "modality", kind: "modality", values: (c) => c.modality_score, ends: [0, 1] },
  energy: { title: "energy", kind: "up", values: (c) => c.energy },
  stability: { title: "stability", kind: "up", values: (c) => c.stability, ends: [0, 1] },
  align_mean_gap: { title: "alignment, mean gap", kind: "signed", values: (c) => c.align_mean_gap },
  align_logistic: { title: "alignment, logistic", kind: "signed", values: (c) => c.align_logistic },
  align_lda: { title: "alignment, LDA", kind: "signed", values: (c) => c.align_lda },
  align_inlp: { title: "alignment, INLP", kind: "up", values: (c) => c.align_inlp, ends: [0, 1] },
  label_auc: { title: "AUC of the best label", kind: "up", values: (c) => c.label_auc, ends: [0.5, 1] },
  name_score: { title: "score of the name", kind: "up", values: (c) => c.name_score, ends: [0.5, 1] },
  monosemanticity: { title: "monosemanticity", kind: "up", values: (c) => c.monosemanticity, ends: [0, 1] },
  rate_image: { title: "rate on images", kind: "up", values: (c) => c.rate_image },
  rate_text: { title: "rate on captions", kind: "up", values: (c) => c.rate_text },
  firings: { title: "firings", kind: "up", values: (c) => c.firings },
}
export const LABEL = "label"
export const QUERY = "query"

/** What the dots' colours or sizes show. */
export interface Shown {
  title: string
  kind: Kind
  values: Values
  low: number
  high: number
  write: (value: number) => string
}

function shownOf(title: string, kind: Kind, values: Values, ends?: readonly [number, number]): Shown {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b)
  const at = (share: number) => known[Math.floor(share * (known.length - 1))] ?? 0
  const largest = known.map(Math.abs).sort((a, b) => a - b)[Math.floor(0.98 * (known.length - 1))] ?? 1
  const [low, high] = kind === "signed" ? [-largest, largest] : (ends ?? [at(0.02), at(0.98)])
  return { title, kind, values, low, high, write: ends || kind === "signed" ? score : (value) => number(value, 2) }
}

/** The column of a name; null for a name of no column. */
export function columnOf(name: string, concepts: Concepts): Shown | null {
  const column = Object.hasOwn(COLUMNS, name) ? COLUMNS[name] : undefined
  return column ? shownOf(column.title, column.kind, column.values(concepts), column.ends) : null
}

/** The columns that hold a number for some concept. */
export function columnsOf(concepts: Concepts): Record<string, string> {
  const known = Object.entries(COLUMNS).filter(([, { values }]) => values(concepts).some((value) => value !== null))
  return Object.fromEntries(known.map(([name, { title }]) => [name, title]))
}

/** AUC of the concepts that tell a label apart best; null for all others. */
export function labelOf(label: string, concepts: Concepts): Shown {
  const values = concepts.label.map((own, concept) => (own === label ? (concepts.label_auc[concept] ?? null) : null))
  return shownOf(`AUC of ${label}`, "up", values, [0.5, 1])
}

/** All labels that are the best of some concept. */
export function labelsOf(concepts: Concepts): string[] {
  return [...new Set(concepts.label)].filter(Boolean).sort()
}

/** Live: the result of a query with the column concept_id and a column of numbers, which is the first other one. */
export async function queryOf(query: string, run: Run, signal: AbortSignal): Promise<Shown> {
  const { columns, rows } = await sql(query, signal)
  const id = columns.findIndex(({ name }) => name === "concept_id")
  const at = columns.findIndex(({ type }, column) => column !== id && /INT|DOUBLE|FLOAT|DECIMAL|REAL|BOOL/i.test(type))
  if (id < 0 || at < 0) throw new DataError("The query must return the column concept_id and a column of numbers.")
  const values = new Array<number | null>(run.concepts).fill(null)
  for (const row of rows) {
    const concept = Number(row[id])
    const value = row[at] === null ? NaN : Number(row[at])
    if (concept in values && Number.isFinite(value)) values[concept] = value
  }
  return shownOf(columns[at]?.name ?? "value", "up", values)
}

/** The colour of every concept. */
export function coloursOf({ kind, values, low, high }: Shown, scheme: Scheme): string[] {
  return values.map((value) => {
    if (kind === "modality") return modalityColour(value, scheme)
    if (value === null) return unknownColour(scheme)
    return scaleColour(kind, high > low ? (value - low) / (high - low) : 0.5, scheme)
  })
}
