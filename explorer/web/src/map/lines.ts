// Draws thousands of thin lines with its own shader, because sigma's program is too slow: without a GPU it needs more
// than a second per frame for 20,000 edges. It supports every shape and width.

import type { RenderParams } from "sigma/types"
import { channels, linked } from "./webgl"

/** The ends of all lines. */
export interface Ends {
  /** x, y and opacity of both ends of each line, in sigma's normalised coordinates. */
  values: Float32Array
  /** CSS colour. */
  colour: string
}

const FLOATS = 3
const VERTEX = `#version 300 es
uniform mat3 matrix;
in vec3 end;
out float opacity;
void main() {
  gl_Position = vec4((matrix * vec3(end.xy, 1.0)).xy, 0.0, 1.0);
  opacity = end.z;
}`
const FRAGMENT = `#version 300 es
precision mediump float;
uniform vec4 colour;
in float opacity;
out vec4 fragment;
void main() {
  float alpha = colour.a * opacity;
  fragment = vec4(colour.rgb * alpha, alpha);
}`

/** A layer for sigma that draws the lines that `ends()` returns. The first frame after `outdated()` calls it again. */
export class LineLayer {
  private readonly program: WebGLProgram
  private readonly vertices: WebGLVertexArrayObject
  private readonly buffer: WebGLBuffer
  private colour: readonly number[] = [0, 0, 0, 1]
  private count = 0
  private most = Infinity
  private isOutdated = true

  constructor(
    private readonly gl: WebGL2RenderingContext,
    private readonly ends: () => Ends,
  ) {
    this.program = linked(gl, VERTEX, FRAGMENT)
    this.vertices = gl.createVertexArray()
    this.buffer = gl.createBuffer()
    const end = gl.getAttribLocation(this.program, "end")
    gl.bindVertexArray(this.vertices)
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer)
    gl.enableVertexAttribArray(end)
    gl.vertexAttribPointer(end, FLOATS, gl.FLOAT, false, 0, 0)
    gl.bindVertexArray(null)
  }

  /** Draw at most the first `lines` lines. */
  limit(lines: number): void {
    this.most = lines
  }

  /** Read lines and colour again for the next frame. */
  outdated(): void {
    this.isOutdated = true
  }

  render({ matrix }: RenderParams): void {
    const gl = this.gl
    gl.bindVertexArray(this.vertices)
    if (this.isOutdated) this.upload()
    if (this.count) {
      gl.enable(gl.BLEND)
      gl.useProgram(this.program)
      gl.uniformMatrix3fv(gl.getUniformLocation(this.program, "matrix"), false, matrix)
      gl.uniform4fv(gl.getUniformLocation(this.program, "colour"), this.colour)
      gl.drawArrays(gl.LINES, 0, Math.min(this.count, 2 * this.most))
    }
    gl.bindVertexArray(null)
  }

  private upload(): void {
    const { values, colour } = this.ends()
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.buffer)
    this.gl.bufferData(this.gl.ARRAY_BUFFER, values, this.gl.STATIC_DRAW)
    this.count = values.length / FLOATS
    this.colour = channels(colour).map((value) => value / 255)
    this.isOutdated = false
  }

  kill(): void {
    this.gl.deleteBuffer(this.buffer)
    this.gl.deleteVertexArray(this.vertices)
    this.gl.deleteProgram(this.program)
  }
}
