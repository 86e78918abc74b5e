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
  return mixed(STOPS[scheme], score)
}

function mixed(stops: readonly string[], at: number): string {
  const position = Math.min(1, Math.max(0, at)) * (stops.length - 1)
  const below = Math.min(stops.length - 2, Math.floor(position))
  const [low, high] = [channels(stops[below] as string), channels(stops[below + 1] as string)]
  const values = low.map((value, i) => Math.round(value + ((high[i] as number) - value) * (position - below)))
  return `#${values.map((value) => value.toString(16).padStart(2, "0")).join("")}`
}

// Scales of everything but modality use neither blue nor orange: "up" runs from light to dark (in the dark scheme, from dark
// to light), which every kind of colour vision orders; "signed" from green by grey to purple.
const SCALES: Record<"up" | "signed", Record<Scheme, readonly string[]>> = {
  up: {
    light: ["#a890a8", "#a24f95", "#7a1f7f", "#4a0f5e", "#24053a"],
    dark: ["#75657a", "#9a5fa0", "#c774c0", "#e79bd8", "#ffd0f0"],
  },
  signed: {
    light: ["#1b7837", "#5f9a6e", "#85868b", "#9a69aa", "#762a83"],
    dark: ["#6fdc97", "#86b896", "#a0a3ab", "#bb98cf", "#e2a8f7"],
  },
}

/** The colour at a position in [0, 1] of a scale; positions beyond the ends have the colours of the ends. */
export function scaleColour(scale: "up" | "signed", position: number, scheme: Scheme): string {
  return mixed(SCALES[scale][scheme], position)
}

/** The colour of a concept without a value. */
export function unknownColour(scheme: Scheme): string {
  return DEAD[scheme]
}

const LEANING = 0.6 // the page says that a bimodal score above 0.6 or below 0.4 leans to one side

/** A modality score in words, for readers who cannot see the colour; the bound of unimodal scores is the study's. */
export function modalityWord(score: number | null, { unimodal }: Definitions): string {
  if (score === null) return "never fires"
  if (score > 1 - unimodal) return "image"
  if (score < unimodal) return "text"
  return score > LEANING ? "leans to image" : score < 1 - LEANING ? "leans to text" : "both"
}
