export { PackError, type ProblemKind } from './errors.js';
export type { PackHeader } from './header.js';
export type { Json } from './json.js';
export { openPack, Pack, type Coefficients, type OpenOptions } from './pack.js';
export { toRGBA } from './pixels.js';
export type { JsonObject, SourceIndex } from './tables.js';
export type { Target } from './targets.js';
