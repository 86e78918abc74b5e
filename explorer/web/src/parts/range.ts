// A filter: two sliders on one track, over a small histogram of the values that it filters.

import { h, s } from "../dom"

export interface RangeOptions {
  label: string
  values: readonly (number | null)[]
  low: number
  high: number
  /** The value at a position of the track, in [0, 1]. */
  at: (position: number) => number
  /** The position of a value on the track. */
  place: (value: number) => number
  write: (value: number) => string
  changed: (low: number, high: number) => void
}

export interface Range {
  element: HTMLElement
  /** Whether both sliders are at their ends, so that no value is left out. */
  open: () => boolean
  reset: () => void
}

const STEPS = 200
const BINS = 28

/** Two sliders that cannot pass each other; `low` and `high` are positions in [0, 1]. */
export function range(options: RangeOptions): Range {
  const { label, write, at } = options
  const output = h("output", { class: "range-value" })
  const slider = (end: "least" | "most", value: number) =>
    h("input", {
      type: "range",
      min: 0,
      max: STEPS,
      step: 1,
      value: Math.round(value * STEPS),
      "aria-label": `${label}, at ${end}`,
    })
  const low = slider("least", options.low)
  const high = slider("most", options.high)
  const span = h("span", { class: "range-span" })

  const draw = () => {
    const [from, to] = [Number(low.value) / STEPS, Number(high.value) / STEPS]
    low.setAttribute("aria-valuetext", write(at(from)))
    high.setAttribute("aria-valuetext", write(at(to)))
    output.textContent = from === 0 && to === 1 ? "all" : `${write(at(from))} to ${write(at(to))}`
    span.style.left = `${from * 100}%`
    span.style.right = `${(1 - to) * 100}%`
    for (const [i, bin] of bins.entries()) bin.classList.toggle("out", (i + 0.5) / BINS < from || (i + 0.5) / BINS > to)
  }
  const moved = (event: Event) => {
    const [from, to] = [Number(low.value), Number(high.value)]
    if (from > to) (event.target === low ? low : high).value = String(event.target === low ? to : from)
    draw()
    options.changed(Number(low.value) / STEPS, Number(high.value) / STEPS)
  }
  low.addEventListener("input", moved)
  high.addEventListener("input", moved)

  const { picture, bins } = histogram(options)
  draw()
  return {
    element: h(
      "div",
      { class: "range", role: "group", "aria-label": label },
      h("div", { class: "range-head" }, h("span", {}, label), output),
      picture,
      h("div", { class: "range-track" }, span, low, high),
    ),
    open: () => Number(low.value) === 0 && Number(high.value) === STEPS,
    reset: () => {
      low.value = "0"
      high.value = String(STEPS)
      draw()
    },
  }
}

function histogram({ values, place }: RangeOptions): { picture: Element; bins: SVGRectElement[] } {
  const counts = new Array<number>(BINS).fill(0)
  for (const value of values) {
    if (value === null) continue
    const bin = Math.min(BINS - 1, Math.max(0, Math.floor(place(value) * BINS)))
    counts[bin] = (counts[bin] as number) + 1
  }
  const most = Math.sqrt(Math.max(1, ...counts)) // heights follow square roots, so that rare values are visible
  const bins = counts.map((value, at) => {
    const height = value ? Math.max(1.5, (Math.sqrt(value) / most) * 22) : 0
    return s("rect", { x: at * 10 + 1, y: 22 - height, width: 8, height })
  })
  const picture = s(
    "svg",
    { class: "range-bins", viewBox: `0 0 ${BINS * 10} 22`, preserveAspectRatio: "none", "aria-hidden": "true" },
    bins,
  )
  return { picture, bins }
}
