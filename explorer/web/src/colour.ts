// The modality scale: orange for text (0), grey for both, blue for images (1). The two ends differ in hue for every kind
// of colour vision, and each stop has a contrast of 3:1 or more to the page's background.

import type { Definitions } from "./contract"

export type Scheme = "light" | "dark"

const STOPS: Record<Scheme, readonly string[]> = {
  light: ["#b34700", "#c27a43", "#85868b", "#4a86ba", "#005fa8"],
  dark: ["#ff9838", "#d9a877", "#a0a3ab", "#7cb4e4", "#45aefc"],
}
const DEAD: Record<Scheme, string> = { light: "#b9bcc4", dark: "#4b5059" }

function channels(hex: string): number[] {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16))
}

/** The colour of a modality score in [0, 1]; a faint grey for null. */
export function modalityColour(score: number | null, scheme: Scheme): string {
  if (score === null) return DEAD[scheme]
  const stops = STOPS[scheme]
  const position = Math.min(1, Math.max(0, score)) * (stops.length - 1)
  const below = Math.min(stops.length - 2, Math.floor(position))
  const [low, high] = [channels(stops[below] as string), channels(stops[below + 1] as string)]
  const mixed = low.map((value, i) => Math.round(value + ((high[i] as number) - value) * (position - below)))
  return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`
}

const LEANING = 0.6 // the page says that a bimodal score above 0.6 or below 0.4 leans to one side

/** A modality score in words, for readers who cannot see the colour; the bound of unimodal scores is the study's. */
export function modalityWord(score: number | null, { unimodal }: Definitions): string {
  if (score === null) return "never fires"
  if (score > 1 - unimodal) return "image"
  if (score < unimodal) return "text"
  return score > LEANING ? "leans to image" : score < 1 - LEANING ? "leans to text" : "both"
}
