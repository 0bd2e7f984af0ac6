import puppeteer from 'puppeteer-core';

export const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
export const VIEWER = new URL('../dist/viewer.html', import.meta.url).href;

// Milliseconds; a machine may have much else to do.
export const PATIENCE = 180_000;

export function browse() {
  return puppeteer.launch({ executablePath: CHROMIUM, headless: true, timeout: PATIENCE, args: ['--no-sandbox', '--disable-gpu'] });
}
