// Draws every dot of the map with its own shader, because sigma's program is too slow: without a GPU it needs 150 ms
// per frame for 8,192 dots. It supports every shape, and draws each dot twice to find the one under the pointer.

import type { RenderParams } from "sigma/types"
import { linked } from "./webgl"

/** The dots in the order of drawing. */
export interface Instances {
  /** x and y in sigma's normalised coordinates, and radius in pixels at the camera's ratio 1. */
  places: Float32Array
  /** Red, green, blue and opacity in [0, 255]; the shader does not use the opacity. */
  colours: Uint8Array
}

const FLOATS = 3
const CHANNELS = 4
const VERTEX = `#version 300 es
uniform mat3 matrix;
uniform vec2 window; // pixels
uniform float scale; // of radii
uniform float fringe; // half the width of the smooth rim
in vec3 place;
in vec3 colour;
out vec3 tint;
out vec2 from;
out float radius;
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  radius = place.z * scale;
  from = corner * (radius + fringe);
  gl_Position = vec4((matrix * vec3(place.xy, 1.0)).xy + from * 2.0 / window, 0.0, 1.0);
  tint = colour;
}`
const FRAGMENT = `#version 300 es
precision highp float;
uniform float fringe;
in vec3 tint;
in vec2 from;
in float radius;
out vec4 fragment;
void main() {
  float alpha = clamp((radius + fringe - length(from)) / (2.0 * fringe), 0.0, 1.0);
  fragment = vec4(tint * alpha, alpha);
}`

/** A layer for sigma that draws the dots that `dots()` returns. The first frame after `outdated()` calls it again. */
export class DotLayer {
  private readonly program: WebGLProgram
  private readonly vertices: WebGLVertexArrayObject
  private readonly places: WebGLBuffer
  private readonly colours: WebGLBuffer
  private count = 0
  private isOutdated = true

  constructor(
    private readonly gl: WebGL2RenderingContext,
    private readonly dots: () => Instances,
  ) {
    this.program = linked(gl, VERTEX, FRAGMENT)
    this.vertices = gl.createVertexArray()
    this.places = gl.createBuffer()
    this.colours = gl.createBuffer()
    gl.bindVertexArray(this.vertices)
    this.each(this.places, "place", FLOATS, gl.FLOAT)
    this.each(this.colours, "colour", CHANNELS, gl.UNSIGNED_BYTE)
    gl.bindVertexArray(null)
  }

  /** Bind an attribute with one value per dot. */
  private each(buffer: WebGLBuffer, name: string, size: number, type: number): void {
    const gl = this.gl
    const at = gl.getAttribLocation(this.program, name)
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer)
    gl.enableVertexAttribArray(at)
    gl.vertexAttribPointer(at, size, type, true, 0, 0)
    gl.vertexAttribDivisor(at, 1)
  }

  /** Read dots and colours again for the next frame. */
  outdated(): void {
    this.isOutdated = true
  }

  render({ matrix, width, height, sizeRatio, pixelRatio }: RenderParams): void {
    const gl = this.gl
    gl.bindVertexArray(this.vertices)
    if (this.isOutdated) this.upload()
    if (this.count) {
      const uniform = (name: string) => gl.getUniformLocation(this.program, name)
      gl.enable(gl.BLEND)
      gl.useProgram(this.program)
      gl.uniformMatrix3fv(uniform("matrix"), false, matrix)
      gl.uniform2f(uniform("window"), width, height)
      gl.uniform1f(uniform("scale"), 1 / sizeRatio)
      gl.uniform1f(uniform("fringe"), 0.75 / pixelRatio)
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count)
    }
    gl.bindVertexArray(null)
  }

  private upload(): void {
    const { places, colours } = this.dots()
    const gl = this.gl
    for (const [buffer, values] of [
      [this.places, places],
      [this.colours, colours],
    ] as const) {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer)
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW)
    }
    this.count = places.length / FLOATS
    this.isOutdated = false
  }

  kill(): void {
    this.gl.deleteBuffer(this.places)
    this.gl.deleteBuffer(this.colours)
    this.gl.deleteVertexArray(this.vertices)
    this.gl.deleteProgram(this.program)
  }
}
