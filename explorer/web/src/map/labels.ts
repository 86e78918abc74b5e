// Writes names beside dots, so that no two names overlap and no name covers another's dot.

const FONT = "12px system-ui, sans-serif"
const HEIGHT = 16
const GAP = 5 // pixels between a dot and its name
const AREA = 20_000 // square pixels of the window per name, so that dots stay visible between names

export interface Named {
  x: number
  y: number
  radius: number
  text: string
}

interface Box {
  left: number
  top: number
  right: number
  bottom: number
}

/** A canvas above the drawing with the names. */
export class Labels {
  private readonly canvas = document.createElement("canvas")
  private readonly widths = new Map<string, number>()
  /** The names that were written last, with their places; for tests, through the attribute `data-names`. */
  private written: Box[] = []

  constructor(private readonly container: HTMLElement) {
    this.canvas.className = "map-labels"
    container.append(this.canvas)
  }

  /** Write the names of dots, the most important first; a name that has no free place is left out. */
  draw(dots: readonly Named[], ink: string, ground: string): void {
    const { clientWidth: width, clientHeight: height } = this.container
    const density = Math.min(devicePixelRatio || 1, 2)
    if (this.canvas.width !== Math.round(width * density) || this.canvas.height !== Math.round(height * density)) {
      this.canvas.width = Math.round(width * density)
      this.canvas.height = Math.round(height * density)
    }
    const context = this.canvas.getContext("2d")
    if (!context) return
    context.setTransform(density, 0, 0, density, 0, 0)
    context.clearRect(0, 0, width, height)
    context.font = FONT
    context.textBaseline = "middle"
    const most = Math.max(6, Math.round((width * height) / AREA))
    this.written = []
    for (const dot of dots) {
      if (this.written.length >= most) break
      if (!dot.text) continue
      const long = this.width(context, dot.text)
      const free = [dot.x + dot.radius + GAP, dot.x - dot.radius - GAP - long]
        .map((left) => box(left, dot.y, long))
        .find((one) => one.left >= 0 && one.right <= width && !this.written.some((other) => overlap(one, other)))
      if (!free) continue
      this.written.push(free)
      context.fillStyle = ground
      context.fillRect(free.left - 1, free.top + 1, long + 2, HEIGHT - 2)
      context.fillStyle = ink
      context.fillText(dot.text, free.left, dot.y)
    }
    this.canvas.dataset.names = JSON.stringify(this.written.map((one) => Object.values(one).map(Math.round)))
  }

  private width(context: CanvasRenderingContext2D, text: string): number {
    let width = this.widths.get(text)
    if (width === undefined) {
      width = context.measureText(text).width
      this.widths.set(text, width)
    }
    return width
  }
}

function box(left: number, y: number, width: number): Box {
  return { left, top: y - HEIGHT / 2, right: left + width, bottom: y + HEIGHT / 2 }
}

function overlap(a: Box, b: Box): boolean {
  return a.left < b.right + 4 && b.left < a.right + 4 && a.top < b.bottom && b.top < a.bottom
}
