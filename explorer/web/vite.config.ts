import { type Plugin, defineConfig } from "vite"

/**
 * Sigma's shaders are strings, which no minifier touches: their comments and indentation are a tenth of its code. In a
 * minified file, no other line begins with a comment or a space.
 */
const shortShaders: Plugin = {
  name: "short-shaders",
  generateBundle: (_, files) => {
    for (const file of Object.values(files))
      if (file.type === "chunk" && file.moduleIds.some((id) => id.includes("/node_modules/sigma/")))
        file.code = file.code.replaceAll(/^[ \t]*\/\/.*\n/gm, "").replaceAll(/^[ \t]+/gm, "")
  },
}

// Relative addresses, so that the built site opens from any folder of a static host.
export default defineConfig({
  base: "./",
  plugins: [shortShaders],
  build: { target: "es2023", assetsInlineLimit: 0, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 1200 },
})
