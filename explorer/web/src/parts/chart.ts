// Charts by Observable Plot. Plot puts a style element into each chart, which the Content-Security-Policy forbids. It
// is removed before the chart enters the page; parts.css has its rules.

import * as Plot from "@observablehq/plot"
import type { ConceptDetail, Run } from "../contract"

const FONT = "inherit"

function drawn(options: Plot.PlotOptions, label: string): HTMLElement | SVGSVGElement {
  const chart = Plot.plot({
    className: "plot",
    marginTop: 18,
    marginRight: 8,
    ...options,
    style: { fontFamily: FONT, fontSize: "12px", background: "none", overflow: "visible" },
  }) as HTMLElement | SVGSVGElement
  for (const style of chart.querySelectorAll("style")) style.remove()
  for (const part of chart.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label") // the chart has one label
  chart.setAttribute("role", "img")
  chart.setAttribute("aria-label", label)
  return chart
}

/** Activations by modality on one axis: images above the line, captions below it. */
export function activationHistogram(histogram: ConceptDetail["histogram"], width: number): Element {
  const bins = histogram.image.map((_, at) => ({
    from: histogram.edges[at] as number,
    to: histogram.edges[at + 1] as number,
    image: histogram.image[at] as number,
    text: -(histogram.text[at] as number),
  }))
  const total = (counts: readonly number[]) => counts.reduce((sum, value) => sum + value, 0)
  const top = Math.max(1, ...histogram.image)
  const bottom = Math.max(1, ...histogram.text)
  return drawn(
    {
      width,
      height: 220,
      marginLeft: 40,
      marginBottom: 34,
      x: { label: "activation", labelAnchor: "right", ticks: 5 },
      y: {
        label: null,
        domain: [-bottom, top],
        tickFormat: (value: number) => String(Math.abs(value)),
        ticks: 6,
        grid: true,
      },
      marks: [
        Plot.rectY(bins, { x1: "from", x2: "to", y: "image", fill: "var(--image)", insetLeft: 0.5, insetRight: 0.5 }),
        Plot.rectY(bins, { x1: "from", x2: "to", y: "text", fill: "var(--text)", insetLeft: 0.5, insetRight: 0.5 }),
        Plot.ruleY([0], { stroke: "currentColor" }),
      ],
    },
    `Histogram of non-zero activations: ${total(histogram.image)} images, ${total(histogram.text)} captions, ` +
      `up to ${(histogram.edges.at(-1) ?? 0).toFixed(2)}.`,
  )
}

/** Stability of each SAE, next to its two floors, the levels that chance reaches. */
export function stabilityChart(runs: readonly Run[], width: number): Element {
  const points = runs.flatMap((run) => {
    const label = `${run.model} · ${run.sae} · ${run.seed}`
    return [
      { label, kind: "stability", value: run.stability },
      { label, kind: "floor, matched", value: run.floor_matched },
      { label, kind: "floor, random", value: run.floor_random },
    ].filter((point) => point.value !== null)
  })
  return drawn(
    {
      width,
      height: 46 + 26 * runs.length,
      marginLeft: Math.min(220, width * 0.42),
      marginBottom: 36,
      x: { label: "mean cosine of matched concepts", domain: [0, 1], grid: true, ticks: 5 },
      y: { label: null, domain: runs.map((run) => `${run.model} · ${run.sae} · ${run.seed}`) },
      symbol: { domain: ["stability", "floor, matched", "floor, random"], range: ["circle", "square", "times"] },
      marks: [
        Plot.ruleY(runs, {
          y: (run: Run) => `${run.model} · ${run.sae} · ${run.seed}`,
          x1: "floor_matched",
          x2: "stability",
          stroke: "var(--accent)",
          strokeWidth: 2,
          strokeOpacity: 0.4,
        }),
        Plot.dot(points, {
          x: "value",
          y: "label",
          symbol: "kind",
          r: 5,
          stroke: (point: { kind: string }) => (point.kind === "stability" ? "var(--accent)" : "var(--muted)"),
          fill: (point: { kind: string }) => (point.kind === "stability" ? "var(--accent)" : "var(--paper)"),
          strokeWidth: 1.5,
        }),
      ],
    },
    `Stability of ${runs.length} SAEs, next to its floors, the levels that chance reaches; the table has the numbers.`,
  )
}

export interface ModalityShare {
  label: string
  scores: readonly (number | null)[]
}

/** Histogram of modality scores, one panel per SAE, as shares of the concepts that have a score. */
export function modalityHistograms(runs: readonly ModalityShare[], width: number): Element {
  const BINS = 20
  const bars = runs.flatMap(({ label, scores }) => {
    const defined = scores.filter((value) => value !== null)
    const counts = new Array<number>(BINS).fill(0)
    for (const value of defined) counts[Math.min(BINS - 1, Math.floor(value * BINS))]!++
    return counts.map((value, at) => ({
      label,
      from: at / BINS,
      to: (at + 1) / BINS,
      share: value / (defined.length || 1),
    }))
  })
  return drawn(
    {
      width,
      height: 60 + 110 * runs.length,
      marginLeft: 44,
      marginRight: 8,
      marginBottom: 36,
      fy: { label: null, domain: runs.map(({ label }) => label), padding: 0.28, axis: null },
      x: { label: "modality score: text 0, image 1", domain: [0, 1], ticks: 5 },
      y: { label: null, tickFormat: "%", ticks: 3, grid: true },
      marks: [
        Plot.rectY(bars, {
          fy: "label",
          x1: "from",
          x2: "to",
          y: "share",
          insetLeft: 0.5,
          insetRight: 0.5,
          fill: (bin: { from: number }) => fill(bin.from),
        }),
        Plot.ruleY([0], { stroke: "currentColor" }),
        Plot.text(runs, {
          fy: "label",
          frameAnchor: "top-left",
          dy: -16,
          text: "label",
          fontWeight: 600,
          fill: "currentColor",
        }),
      ],
    },
    `Histogram of modality scores of ${runs.map(({ label }) => label).join(", ")}.`,
  )
}

function fill(from: number): string {
  return `var(--scale-${Math.min(4, Math.floor(from * 5))})`
}
