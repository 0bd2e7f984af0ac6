export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

const MAX_NESTING = 64;
const MAX_DIGITS = 4300;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const SPACE = /[ \t\n\r]*/y;
const WORDS: [string, Json][] = [['null', null], ['true', true], ['false', false]];

/**
 * Parse JSON as EdgePack allows it: numbers within double precision, nested at most 64 deep, no name twice in an
 * object, no half of a surrogate pair. Integers beyond 2^53 lose their last digits, as always in JavaScript.
 *
 * @throws SyntaxError
 */
export function parseJson(text: string): Json {
  let at = 0;

  const fail = (what: string): never => {
    throw new SyntaxError(`${what} at character ${at}`);
  };
  const match = (pattern: RegExp): string | null => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at += found[0].length;
    return found && found[0];
  };
  const space = () => match(SPACE);
  const take = (mark: string): boolean => {
    space();
    if (!text.startsWith(mark, at)) return false;
    at += mark.length;
    return true;
  };

  const string = (): string => {
    const found = match(STRING) ?? fail('no string');
    const value = JSON.parse(found) as string;
    if (/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(value)) fail('half a surrogate pair');
    return value;
  };
  const number = (): number => {
    const found = match(NUMBER) ?? fail('no value');
    const value = Number(found);
    if (!Number.isFinite(value) || found.length > MAX_DIGITS) fail('a number is too large');
    return value;
  };
  const list = (depth: number): Json[] => {
    const items: Json[] = [];
    if (take(']')) return items;
    do items.push(value(depth));
    while (take(','));
    return take(']') ? items : fail('no end of a list');
  };
  const object = (depth: number): Json => {
    const entries = new Map<string, Json>();
    if (take('}')) return {};
    do {
      space();
      const name = string();
      if (entries.has(name)) fail('a name stands twice in an object');
      if (!take(':')) fail('no colon');
      entries.set(name, value(depth));
    } while (take(','));
    return take('}') ? Object.fromEntries(entries) : fail('no end of an object');
  };
  const value = (depth: number): Json => {
    space();
    if (text[at] === '"') return string();
    for (const [word, meaning] of WORDS) if (take(word)) return meaning;
    const opened = text[at];
    if (opened !== '[' && opened !== '{') return number();
    if (depth === MAX_NESTING) fail(`nested deeper than ${MAX_NESTING}`);
    at++;
    return opened === '[' ? list(depth + 1) : object(depth + 1);
  };

  const result = value(0);
  space();
  return at === text.length ? result : fail('text after the end');
}
