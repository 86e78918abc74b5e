// Finds the items of a part of the map without a look at all of them.

const SIDE = 512 // cells along each axis
const UNIT = 32767

/** A grid over places in steps of 1/32767: each cell lists its items. */
export class Grid {
  private readonly start = new Uint32Array(SIDE * SIDE + 1)
  private readonly items: Uint32Array

  constructor(x: Int16Array, y: Int16Array) {
    this.items = new Uint32Array(x.length)
    const cellOf = (item: number) => column(y[item] as number) * SIDE + column(x[item] as number)
    for (let item = 0; item < x.length; item++) this.start[cellOf(item) + 1]!++
    for (let cell = 0; cell < SIDE * SIDE; cell++) this.start[cell + 1]! += this.start[cell] as number
    const next = this.start.slice(0, -1)
    for (let item = 0; item < x.length; item++) this.items[next[cellOf(item)]!++] = item
  }

  /** Call a function for every item of the cells that a rectangle touches; the corners are in [-1, 1]. */
  each(left: number, low: number, right: number, high: number, call: (item: number) => void): void {
    for (let row = column(low * UNIT); row <= column(high * UNIT); row++) {
      const from = this.start[row * SIDE + column(left * UNIT)] as number
      const to = this.start[row * SIDE + column(right * UNIT) + 1] as number
      for (let at = from; at < to; at++) call(this.items[at] as number)
    }
  }
}

function column(value: number): number {
  return Math.min(SIDE - 1, Math.max(0, Math.floor(((value + UNIT) / (2 * UNIT + 1)) * SIDE)))
}
