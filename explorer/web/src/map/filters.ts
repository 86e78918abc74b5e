// Filters of the map's concepts: ranges of modality, energy, stability and alignment, kept in the page's address.

import type { Concepts } from "../contract"
import { h } from "../dom"
import { number, score } from "../format"
import { type Range, range } from "../parts/range"

export const ALIGNMENTS = {
  align_mean_gap: "mean gap",
  align_logistic: "logistic",
  align_lda: "LDA",
  align_inlp: "INLP",
} as const
export type Alignment = keyof typeof ALIGNMENTS

const NAMES = ["modality", "energy", "stability", "alignment"] as const
type Name = (typeof NAMES)[number]

interface Axis {
  label: string
  values: readonly (number | null)[]
  at: (position: number) => number
  place: (value: number) => number
  write: (value: number) => string
}

export interface Filters {
  element: HTMLElement
  /** One value per concept: 1 if it passes, else 0. */
  passing: () => Uint8Array
  reset: () => void
}

/** Build the four filters over a run's concepts; `noted` receives parameters for the address. */
export function filters(
  concepts: Concepts,
  params: Record<string, string>,
  noted: (params: Record<string, string>) => void,
): Filters {
  const limits = new Map<Name, [number, number]>()
  let alignment: Alignment = params.by && params.by in ALIGNMENTS ? (params.by as Alignment) : "align_mean_gap"
  const ranges = new Map<Name, Range>()
  let axes = axesOf(concepts, alignment)
  const element = h("div", { class: "filters" })

  const build = () => {
    axes = axesOf(concepts, alignment)
    const controls = NAMES.map((name) => {
      const [low, high] = limits.get(name) ?? between(params[name])
      limits.set(name, [low, high])
      const control = range({
        ...axes[name],
        low,
        high,
        changed: (from, to) => {
          limits.set(name, [from, to])
          noted({ [name]: from === 0 && to === 1 ? "" : `${from.toFixed(3)}-${to.toFixed(3)}` })
        },
      })
      ranges.set(name, control)
      return control.element
    })
    element.replaceChildren(...controls, choice())
  }
  const choice = () => {
    const select = h(
      "select",
      {
        onchange: () => {
          alignment = select.value as Alignment
          limits.set("alignment", [0, 1])
          build()
          noted({ by: alignment === "align_mean_gap" ? "" : alignment, alignment: "" })
        },
      },
      Object.entries(ALIGNMENTS).map(([value, label]) => h("option", { value, selected: value === alignment }, label)),
    )
    return h("label", { class: "small-choice" }, "alignment with ", select)
  }
  build()
  return {
    element,
    passing: () => {
      const pass = new Uint8Array(concepts.name.length).fill(1)
      for (const name of NAMES) {
        if (ranges.get(name)?.open()) continue
        const [low, high] = limits.get(name) as [number, number]
        const { values, place } = axes[name]
        values.forEach((value, concept) => {
          const at = value === null ? -1 : place(value)
          if (at < low - 1e-9 || at > high + 1e-9) pass[concept] = 0
        })
      }
      return pass
    },
    reset: () => {
      for (const name of NAMES) {
        limits.set(name, [0, 1])
        ranges.get(name)?.reset()
      }
      noted(Object.fromEntries(NAMES.map((name) => [name, ""])))
    },
  }
}

function between(text: string | undefined): [number, number] {
  const [low, high] = (text ?? "").split("-").map(Number)
  const fine = (value: number | undefined): value is number => value !== undefined && value >= 0 && value <= 1
  return fine(low) && fine(high) && low <= high ? [low, high] : [0, 1]
}

function axesOf(concepts: Concepts, alignment: Alignment): Record<Name, Axis> {
  return {
    modality: unit("modality: text to image", concepts.modality_score),
    energy: ranked("energy", concepts.energy),
    stability: unit("stability", concepts.stability),
    alignment: unit(
      "alignment, its size",
      concepts[alignment].map((value) => (value === null ? null : Math.abs(value))),
    ),
  }
}

function unit(label: string, values: readonly (number | null)[]): Axis {
  return { label, values, at: (position) => position, place: (value) => Math.min(1, Math.max(0, value)), write: score }
}

/** Energies span orders of magnitude: the track is logarithmic between the smallest and the largest. */
function ranked(label: string, energy: readonly number[]): Axis {
  const fired = energy.filter((value) => value > 0)
  const low = Math.log(Math.min(...(fired.length ? fired : [1])))
  const high = Math.log(Math.max(...(fired.length ? fired : [1])))
  const span = high - low || 1
  return {
    label,
    values: energy.map((value) => (value > 0 ? value : null)),
    at: (position) => Math.exp(low + position * span),
    place: (value) => (value > 0 ? (Math.log(value) - low) / span : -1),
    write: (value) => number(value, 2),
  }
}
