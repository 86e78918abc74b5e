// The items on which a concept fires, as numbers on the map.

import type { Manifest, Run } from "../contract"
import * as data from "../data"

export interface Lit {
  items: Uint32Array
  /** What is missing, in words; empty when every item on which the concept fires is there. */
  limit: string
}

const MOST = 10_000 // rows of an answer of the server

/** Number on the map of an image or a caption; null for an unknown id. `images`: the number of images on the map. */
export function numberOf(id: Float64Array, images: number, modality: data.Modality, item: number): number | null {
  let [low, high] = modality === "image" ? [0, images - 1] : [images, id.length - 1]
  while (low <= high) {
    const middle = (low + high) >> 1
    const value = id[middle] as number
    if (value === item) return middle
    if (value < item) low = middle + 1
    else high = middle - 1
  }
  return null
}

/** The items of a concept: from the files of firings, else from the live server, else its lists of top items. */
export async function lit(
  manifest: Manifest,
  run: Run,
  id: Float64Array,
  images: number,
  concept: number,
  signal: AbortSignal,
): Promise<Lit> {
  if (manifest.firings) return { items: (await data.firings(manifest, run, concept)).item, limit: "" }
  const numbered = (rows: readonly (readonly [data.Modality, number])[]) =>
    Uint32Array.from(rows.flatMap(([modality, item]) => numberOf(id, images, modality, item) ?? []))
  if (manifest.live) {
    const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
    const answer = await data.sql(
      `SELECT modality, item_id FROM activations WHERE model = ${literal(run.model)} AND sae = ${literal(run.sae)} ` +
        `AND seed = ${run.seed} AND concept_id = ${concept} ORDER BY activation DESC`,
      signal,
    )
    const rows = answer.rows.map(([modality, item]) => [modality as data.Modality, Number(item)] as const)
    return {
      items: numbered(rows),
      limit: answer.truncated ? `the ${MOST.toLocaleString("en")} on which it fires most` : "",
    }
  }
  const own = await data.detail(manifest, run, concept)
  const top = [
    ...(own?.images ?? []).map(({ item }) => ["image", item] as const),
    ...(own?.texts ?? []).map(({ item }) => ["text", item] as const),
  ]
  return { items: numbered(top), limit: "its top items alone, since this site has no codes of all items" }
}
