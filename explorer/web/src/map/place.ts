// The map's state in the address: the camera, the choice of bridges, and the filters.

import type { Camera } from "./drawing"
import { SCORES, type Score } from "./scales"

type Params = Record<string, string>

const HOME: Camera = { x: 0.5, y: 0.5, ratio: 1 }

/** The score by which bridges are ranked. */
export function scoreOf(params: Params): Score {
  return params.score && params.score in SCORES ? (params.score as Score) : "bridge"
}

/** The number of bridges on the whole map: none at first, so that only those of what is selected are drawn. */
export function shownOf(params: Params): number {
  const asked = Number(params.edges)
  return params.edges !== undefined && Number.isInteger(asked) && asked >= 0 ? asked : 0
}

/** The camera of an address; without one, the camera that shows the whole map. */
export function cameraOf(params: Params): Camera {
  const [x, y, ratio] = (params.at ?? "").split(",").map(Number)
  const fine = (value: number | undefined): value is number => value !== undefined && Number.isFinite(value)
  return fine(x) && fine(y) && fine(ratio) && ratio > 0 ? { x, y, ratio } : HOME
}

/** The address's parameter of a camera; empty for the camera that shows the whole map. */
export function cameraParams(camera: Camera | undefined): { at: string } {
  const { x, y, ratio } = camera ?? HOME
  const home = Math.abs(x - HOME.x) + Math.abs(y - HOME.y) + Math.abs(ratio - HOME.ratio) < 1e-3
  return { at: home ? "" : [x, y, ratio].map((value) => value.toFixed(3)).join(",") }
}

/** The parameters of an address that the left column controls, as one string to compare. */
export function narrowing(params: Params): string {
  const elsewhere = new Set(["sel", "at", "as", "sort", "pick"])
  return JSON.stringify(
    Object.entries(params)
      .filter(([name, value]) => !elsewhere.has(name) && value !== "")
      .sort(),
  )
}
