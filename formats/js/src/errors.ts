/** What is wrong with a file: no pack at all, another version, wrong contents, beyond a bound, or damage. */
export type ProblemKind = 'not-a-pack' | 'version' | 'layout' | 'limit' | 'checksum';

/** A file that is refused. `location` names the object, as `/samples/values chunk 3`. */
export class PackError extends Error {
  constructor(
    readonly kind: ProblemKind,
    readonly location: string,
    message: string,
  ) {
    super(`${location}: ${message}`);
    this.name = 'PackError';
  }
}

export function refuse(kind: ProblemKind, location: string, message: string): never {
  throw new PackError(kind, location, message);
}
