// Steps from dot to dot with the arrow keys.

import type { Drawing } from "./drawing"

const ARROWS: Record<string, readonly [number, number]> = {
  ArrowRight: [1, 0],
  ArrowLeft: [-1, 0],
  ArrowDown: [0, 1],
  ArrowUp: [0, -1],
}

/**
 * The dot to which an arrow key leads: the nearest dot that passes the filters and lies within 45 degrees of the key's
 * direction from `from`. If `from` is null, it is the dot nearest to the centre. Null for other keys, or if there is no
 * such dot.
 */
export function step(
  drawing: Drawing,
  passing: Uint8Array,
  from: number | null,
  key: string,
  canvas: HTMLElement,
): number | null {
  const arrow = ARROWS[key]
  if (!arrow) return null
  const [dx, dy] = arrow
  const here = from === null ? null : drawing.place(from)
  const start = here ?? { x: canvas.clientWidth / 2, y: canvas.clientHeight / 2 }
  let nearest: number | null = null
  let least = Infinity
  passing.forEach((pass, concept) => {
    if (!pass || concept === from) return
    const at = drawing.place(concept)
    if (!at) return
    const [x, y] = [at.x - start.x, at.y - start.y]
    const along = x * dx + y * dy
    const aside = Math.abs(x * dy) + Math.abs(y * dx)
    const distance = here ? along + 2 * aside : Math.hypot(x, y)
    if ((!here || (along > 0 && aside <= along)) && distance < least) {
      least = distance
      nearest = concept
    }
  })
  return nearest
}
