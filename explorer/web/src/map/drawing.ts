// The map's WebGL drawing: dots, edges, the camera. It knows nothing of pages, addresses or data files.

import Graph from "graphology"
import Sigma from "sigma"
import { type Ends, Lines } from "./lines"

export interface Dots {
  x: readonly (number | null)[]
  y: readonly (number | null)[]
  radius: readonly number[]
  label: readonly string[]
}

export interface Edge {
  from: number
  to: number
  /** Weight in [0, 1], which becomes width and opacity. */
  weight: number
}

export interface Camera {
  x: number
  y: number
  ratio: number
}

export interface Colours {
  dot: readonly string[]
  label: string
  ground: string
  edge: string
  strong: string
}

export interface Events {
  entered: (concept: number) => void
  left: () => void
  clicked: (concept: number | null) => void
  opened: (concept: number) => void
  moved: () => void
  drawn: () => void
}

// Every run's layout lies in [-1, 1]: a fixed frame keeps the camera's place when the run changes.
const FRAME = { x: [-1, 1] as [number, number], y: [-1, 1] as [number, number] }
const FONT = "system-ui, sans-serif"
const REACH = 3 // pixels beside a dot that still count as on it
const MOVING_LINES = 1500 // so many while the camera moves: where there is no GPU, all of them take half a second a frame
const RESTS_AFTER = 250 // milliseconds
const WITH_WIDTH = 300 // so many edges, the strongest, show their weight by their width too; the others are thin lines

export class Drawing {
  private readonly graph = new Graph({ type: "undirected", multi: true })
  private readonly sigma: Sigma
  private colours: Colours | null = null
  private selected: string[] = [] // edges of the selected concept
  private thin: readonly Edge[] = [] // edges that are drawn as lines
  private lines: Lines | null = null
  private resting = 0
  private over: number | null = null // the dot under the pointer

  constructor(container: HTMLElement, events: Events) {
    this.sigma = new Sigma(this.graph, container, {
      styles: {
        nodes: {
          x: { attribute: "x" },
          y: { attribute: "y" },
          size: { attribute: "size" },
          color: { attribute: "color" },
          label: { attribute: "label" },
          labelColor: { attribute: "labelColor" },
          labelSize: 12,
          labelBackgroundColor: { attribute: "labelGround" },
          labelBackgroundPadding: 1,
          labelFont: FONT,
          visibility: { attribute: "visibility", defaultValue: "visible" },
          depth: { attribute: "depth", defaultValue: "nodes" },
        },
        edges: {
          size: { attribute: "size" },
          color: { attribute: "color" },
          opacity: { attribute: "opacity" },
          depth: { attribute: "depth", defaultValue: "edges" },
        },
      },
      settings: {
        itemSizesReference: "screen",
        stagePadding: 36,
        minEdgeThickness: 0.6,
        pickingDownSizingRatio: 64, // not asked: see `listen`
        labelDensity: 0.5,
        labelGridCellSize: 160,
        labelRenderedSizeThreshold: 9,
        minCameraRatio: 0.02,
        maxCameraRatio: 2.5,
        doubleClickTimeout: 250,
        enableCameraRotation: false,
        allowInvalidContainer: true,
      },
    })
    this.sigma.setCustomBBox(FRAME)
    this.sigma.addCustomLayerProgram("lines", "edges", (gl) => {
      this.lines = new Lines(gl, () => this.ends()) // once more when a lost context is back
      return this.lines
    })
    this.listen(container, events)
    this.sigma.on("afterRender", () => events.drawn())
    this.sigma.getCamera().on("updated", () => {
      this.rests()
      events.moved()
    })
  }

  /**
   * Which dot is meant is found here, not by sigma, which draws the whole map once more for every dot that the pointer
   * enters, and all dots a second time into a buffer to read the answer from.
   */
  private listen(container: HTMLElement, events: Events): void {
    const enter = (concept: number | null) => {
      if (concept === this.over) return
      this.over = concept
      container.style.cursor = concept === null ? "" : "pointer"
      if (concept === null) events.left()
      else events.entered(concept)
    }
    container.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") return
      if (event.buttons) return enter(null) // the map is dragged
      event.stopPropagation() // sigma listens above
      const { left, top } = container.getBoundingClientRect()
      enter(this.at(event.clientX - left, event.clientY - top))
    })
    container.addEventListener("pointerleave", () => enter(null))
    const clicked = ({ event }: { event: { x: number; y: number } }) => events.clicked(this.at(event.x, event.y))
    this.sigma.on("clickNode", clicked)
    this.sigma.on("clickStage", clicked)
    const opened = ({
      event,
      preventSigmaDefault,
    }: {
      event: { x: number; y: number }
      preventSigmaDefault(): void
    }) => {
      const concept = this.at(event.x, event.y)
      if (concept === null) return
      preventSigmaDefault()
      events.opened(concept)
    }
    this.sigma.on("doubleClickNode", opened)
    this.sigma.on("doubleClickStage", opened)
  }

  /** The camera moved: few lines until it rests. */
  private rests(): void {
    this.lines?.limit(MOVING_LINES)
    clearTimeout(this.resting)
    this.resting = setTimeout(() => {
      this.lines?.limit(Infinity)
      this.sigma.scheduleRender()
    }, RESTS_AFTER)
  }

  /** The dot at a place in pixels of the container: of several, the one whose middle is nearest. */
  at(x: number, y: number): number | null {
    let found: number | null = null
    let nearest = Infinity
    this.graph.forEachNode((node, attributes) => {
      if (attributes.visibility === "hidden") return
      const middle = this.sigma.graphToViewport(attributes as { x: number; y: number })
      const distance = Math.hypot(middle.x - x, middle.y - y)
      if (distance > this.sigma.scaleSize(attributes.size as number) + REACH || distance >= nearest) return
      found = Number(node)
      nearest = distance
    })
    return found
  }

  /** Replace all dots; concepts without a place (dead ones) get none. */
  dots(dots: Dots, colours: Colours): void {
    this.colours = colours
    this.graph.clear()
    this.selected = []
    this.over = null
    this.thin = []
    this.lines?.outdated()
    dots.x.forEach((x, concept) => {
      const y = dots.y[concept]
      if (x === null || y === null || y === undefined) return
      this.graph.addNode(concept, {
        x,
        y,
        size: dots.radius[concept],
        label: dots.label[concept],
        color: colours.dot[concept],
        labelColor: colours.label,
        labelGround: colours.ground,
      })
    })
    this.sigma.refresh()
  }

  /** Other colours for the same dots and edges. */
  recolour(colours: Colours): void {
    this.colours = colours
    this.graph.updateEachNodeAttributes((node, attributes) => {
      attributes.color = colours.dot[Number(node)]
      attributes.labelColor = colours.label
      attributes.labelGround = colours.ground
      return attributes
    })
    this.graph.updateEachEdgeAttributes((_, attributes) => {
      attributes.color = attributes.depth === "topEdges" ? colours.strong : colours.edge
      return attributes
    })
    this.lines?.outdated()
  }

  /** Show the concepts that pass, hide the others. */
  show(passing: Uint8Array): void {
    this.graph.updateEachNodeAttributes(
      (node, attributes) => {
        attributes.visibility = passing[Number(node)] ? "visible" : "hidden"
        return attributes
      },
      { attributes: ["visibility"] },
    )
  }

  /** Replace the edges of the whole map, given strongest first. */
  edges(edges: readonly Edge[]): void {
    this.graph.clearEdges()
    this.selected = []
    for (const edge of edges.slice(0, WITH_WIDTH)) {
      this.edge(edge, {
        size: 0.7 + 2 * edge.weight,
        opacity: opacity(edge),
        color: this.colours?.edge,
        depth: "edges",
      })
    }
    this.thin = edges.slice(WITH_WIDTH)
    this.lines?.outdated()
    this.sigma.scheduleRender()
  }

  /** The thin edges' ends, where sigma draws their dots. */
  private ends(): Ends {
    const place = this.sigma.getNormalizationFunction()
    const values = this.thin.flatMap((edge) => {
      if (!this.graph.hasNode(edge.from) || !this.graph.hasNode(edge.to)) return []
      return [edge.from, edge.to].flatMap((concept) => {
        const { x, y } = place(this.graph.getNodeAttributes(concept) as { x: number; y: number })
        return [x, y, opacity(edge)]
      })
    })
    return { values: new Float32Array(values), colour: this.colours?.edge ?? "black" }
  }

  /** Replace the edges of the selected concept, which lie above those of the whole map. */
  selectedEdges(edges: readonly Edge[]): void {
    for (const edge of this.selected) this.graph.dropEdge(edge)
    this.selected = edges.flatMap((edge) =>
      this.edge(edge, {
        size: 1.2 + 2.6 * edge.weight,
        opacity: 0.5 + 0.5 * edge.weight,
        color: this.colours?.strong,
        depth: "topEdges",
      }),
    )
  }

  /** Add an edge between two dots; a concept without a place has none, and none joins a dot with itself. */
  private edge({ from, to }: Edge, attributes: Record<string, unknown>): string[] {
    if (from === to || !this.graph.hasNode(from) || !this.graph.hasNode(to)) return []
    return [this.graph.addUndirectedEdge(from, to, attributes)]
  }

  /** Whether a concept has a dot. */
  has(concept: number): boolean {
    return this.graph.hasNode(concept)
  }

  /** Where a dot is drawn, in pixels of the container, and its radius there; null where there is none. */
  place(concept: number): { x: number; y: number; radius: number } | null {
    if (!this.graph.hasNode(concept)) return null
    const { x, y, size } = this.graph.getNodeAttributes(concept) as { x: number; y: number; size: number }
    return { ...this.sigma.graphToViewport({ x, y }), radius: this.sigma.scaleSize(size) }
  }

  camera(): Camera {
    const { x, y, ratio } = this.sigma.getCamera().getState()
    return { x, y, ratio }
  }

  move(camera: Partial<Camera>, animated = false): void {
    if (animated) void this.sigma.getCamera().animate(camera, { duration: 250 })
    else this.sigma.getCamera().setState(camera)
  }

  /** Zoom by a factor about the middle: under 1 is nearer. */
  zoom(factor: number): void {
    this.move({ ratio: this.sigma.getCamera().getBoundedRatio(this.camera().ratio * factor) }, true)
  }

  /** Pan by a share of the window. */
  pan(dx: number, dy: number): void {
    const { x, y, ratio } = this.camera()
    this.move({ x: x + dx * ratio, y: y + dy * ratio }, true)
  }

  /** Move the camera only if a dot lies outside the window. */
  reveal(concept: number): void {
    const at = this.place(concept)
    if (!at) return
    const { width, height } = this.sigma.getDimensions()
    if (at.x > 0 && at.y > 0 && at.x < width && at.y < height) return
    const { x, y } = this.sigma.viewportToFramedGraph(at)
    this.move({ x, y }, true)
  }

  /** The container was shown again, or changed its size. */
  resized(): void {
    this.sigma.resize(true)
    this.sigma.scheduleRender()
  }
}

function opacity(edge: Edge): number {
  return 0.22 + 0.5 * edge.weight
}
