// Functions shared by the map's layers.

/** Link a program of two shaders. Throws an error if they do not compile. */
export function linked(gl: WebGL2RenderingContext, vertex: string, fragment: string): WebGLProgram {
  const program = gl.createProgram()
  for (const [type, source] of [
    [gl.VERTEX_SHADER, vertex],
    [gl.FRAGMENT_SHADER, fragment],
  ] as const) {
    const shader = gl.createShader(type)
    if (!shader) throw new Error("the graphics context was lost")
    gl.shaderSource(shader, source)
    gl.compileShader(shader)
    gl.attachShader(program, shader)
    gl.deleteShader(shader) // deleted with the program
  }
  gl.linkProgram(program)
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost())
    throw new Error(`a shader of the map: ${gl.getProgramInfoLog(program) ?? "no reason given"}`)
  return program
}

/** Red, green, blue and opacity in [0, 255] of a CSS colour, as the browser reads it. */
export function channels(colour: string): number[] {
  if (/^#[0-9a-f]{6}$/i.test(colour))
    return [1, 3, 5, 7].map((at) => (at < 7 ? parseInt(colour.slice(at, at + 2), 16) : 255))
  const context = new OffscreenCanvas(1, 1).getContext("2d")
  if (!context) throw new Error("no 2D canvas to read a colour with")
  context.fillStyle = colour
  context.fillRect(0, 0, 1, 1)
  return [...context.getImageData(0, 0, 1, 1).data]
}
