// GraphiQL in a real browser: typed into, run, and seen to talk to nobody but this server.
import { mkdirSync } from 'node:fs';
import puppeteer from 'puppeteer-core';

const [url, key, pictures] = process.argv.slice(2);
mkdirSync(pictures, { recursive: true });
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-background-networking'],
});

const expect = (holds, what) => {
  if (!holds) throw new Error(what);
};

const page = await browser.newPage();
try {
  await page.setViewport({ width: 1400, height: 900 });
  const foreign = [];
  const complaints = [];
  page.on('request', (request) => {
    const { protocol, origin } = new URL(request.url());
    if (!['data:', 'blob:'].includes(protocol) && origin !== new URL(url).origin) foreign.push(request.url());
  });
  page.on('pageerror', (error) => complaints.push(error.message));
  await page.goto(`${url}/graphiql`, { waitUntil: 'networkidle0' });

  const shown = (text) =>
    page.waitForFunction((text) => document.querySelector('.result-window')?.textContent.includes(text), { timeout: 10000 }, text);
  const tab = async (name) => {
    const tabs = await page.$$('.graphiql-tab-button');
    for (const button of tabs) {
      if ((await button.evaluate((node) => node.textContent)) !== name) continue;
      await button.click();
      // The page reads the document some hundred milliseconds after it shows it.
      return new Promise((done) => setTimeout(done, 1000));
    }
    throw new Error(`no tab ${name}`);
  };
  const run = () => page.click('.graphiql-execute-button');
  const write = async (editor, text) => {
    await page.click(`${editor} .CodeMirror`);
    await page.keyboard.down('Control');
    await page.keyboard.press('KeyA');
    await page.keyboard.up('Control');
    await page.evaluate(
      ([editor, text]) => document.querySelector(`${editor} .CodeMirror`).CodeMirror.setValue(text),
      [editor, text],
    );
  };
  const headers = '.graphiql-editor-tool .graphiql-editor:not(.hidden)';

  // The documentation is there before a key is.
  await page.click('[aria-label="Show Documentation Explorer"]');
  await page.waitForFunction(() => document.querySelector('.graphiql-doc-explorer')?.textContent.includes('Mutation'), { timeout: 10000 });

  // Without a key the answer says what is missing.
  await run();
  await shown('UNAUTHENTICATED');

  await write(headers, JSON.stringify({ Authorization: `Bearer ${key}` }));
  await run();
  await shown('"role": "OPERATOR"');

  // The key is typed once.
  await tab('CreateCustomer');
  await run();
  await shown('"outcome": "CREATED"');
  await page.screenshot({ path: `${pictures}/graphiql-light.png` });
  await run();
  await shown('EXTERNAL_CUSTOMER_ID_TAKEN');
  await tab('Customers');
  await run();
  await shown('"totalCount": 1');
  await tab('Search');
  await run();
  await shown('"email": "grace@example.com"');

  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
  await page.reload({ waitUntil: 'networkidle0' });
  await tab('CreateCustomer');
  await page.screenshot({ path: `${pictures}/graphiql-dark.png` });
  const text = await page.evaluate(() => document.body.textContent + JSON.stringify({ ...localStorage }));
  expect(!text.includes(key), 'the key outlived the page');
  expect(foreign.length === 0, `requests to others: ${foreign}`);
  expect(complaints.length === 0, `errors of the page: ${complaints}`);
  console.log('GraphiQL answers in Chromium, and talks to nobody else');
} catch (error) {
  await page.screenshot({ path: `${pictures}/graphiql-failed.png` });
  throw error;
} finally {
  await browser.close();
}
