// Tests GraphiQL in Chromium: the key, the tabs, the data that the browser keeps, and a narrow window.
// Usage: node graphiql.js URL KEY FOLDER_FOR_SCREENSHOTS, where KEY is the API key of an operator without customers.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { runInNewContext } from 'node:vm';
import { buildSchema, parse, validate } from 'graphql';
import { chromium } from 'playwright-core';

const [url, key, screenshots] = process.argv.slice(2);
const PLACEHOLDER = 'Bearer YOUR_KEY';
const WIDE = { width: 1400, height: 900 };
const NARROW = { width: 420, height: 800 };

const file = (path) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const examples = runInNewContext(`${file('web/graphiql/examples.js')}; examples`);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});

/** GraphiQL in a new browser context, in which nothing is stored yet. */
class Page {
  /** Opens the page. `prepare` changes the browser context before. */
  static async open(viewport = WIDE, colorScheme = 'light', prepare = async () => {}) {
    const context = await browser.newContext({ viewport, colorScheme });
    await prepare(context);
    const self = new Page();
    self.page = await context.newPage();
    self.foreign = [];
    self.errors = [];
    self.page.on('request', (request) => {
      const { protocol, origin } = new URL(request.url());
      if (!['data:', 'blob:'].includes(protocol) && origin !== new URL(url).origin) self.foreign.push(request.url());
    });
    self.page.on('pageerror', (error) => self.errors.push(error.message));
    await self.page.goto(`${url}/graphiql`);
    await self.waitUntilLoaded();
    return self;
  }

  async close() {
    assert.deepEqual(this.foreign, [], 'requests to other servers');
    assert.deepEqual(this.errors, [], 'errors in the page');
    await this.page.context().close();
  }

  /**
   * Waits until the page has processed the last input. GraphiQL reads an editor 100 ms and stores tabs 500 ms after a
   * change. This timer runs in the page too, so even on a slow machine it ends after these timers.
   */
  settle = () => this.page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 800)));

  /** Waits until the page has loaded its editors and restored the tabs of the last visit. */
  async waitUntilLoaded() {
    await this.tabs().first().waitFor();
    await this.page.waitForFunction(() => {
      const editor = document.querySelectorAll('.graphiql-editor-tool .graphiql-editor .CodeMirror')[1]?.CodeMirror;
      // The page sets this option when it selects the tab of the last visit.
      return editor?.getOption('lineWrapping') && editor.getValue();
    });
    await this.settle();
  }

  async reload() {
    await this.settle();
    await this.page.reload();
    await this.waitUntilLoaded();
  }

  tabs = () => this.page.locator('.graphiql-tab-button');
  keyField = () => this.page.getByLabel('API key');
  runButton = () => this.page.locator('.graphiql-execute-button');
  queryEditor = () => this.page.locator('.graphiql-query-editor .CodeMirror');
  variableEditor = () => this.page.locator('.graphiql-editor-tool .graphiql-editor .CodeMirror').nth(0);
  headerEditor = () => this.page.locator('.graphiql-editor-tool .graphiql-editor .CodeMirror').nth(1);

  text = (editor) => editor.evaluate((node) => node.CodeMirror.getValue());

  async selectTab(name) {
    await this.tabs().getByText(name, { exact: true }).click();
    await this.settle();
  }

  /** Replaces the text of an editor as a person would, by the keyboard. */
  async type(editor, text) {
    await editor.click();
    await this.page.keyboard.press('Control+A');
    await this.page.keyboard.insertText(text);
    await this.settle();
  }

  async typeKey(key) {
    await this.keyField().fill(key);
    await this.settle();
  }

  shownAuthorization = async () => JSON.parse(await this.text(this.headerEditor())).Authorization;

  /** Runs the tab, and returns the sent `Authorization` header and the body of the response. */
  async run() {
    const isGraphql = (response) => response.url() === `${url}/graphql`;
    const [response] = await Promise.all([this.page.waitForResponse(isGraphql), this.runButton().click()]);
    const sent = (await response.request().allHeaders()).authorization;
    return { sent, body: await response.json() };
  }

  /** Runs the tab, and checks that the header in the editor is the one that is sent. */
  async runAsShown(expected) {
    assert.equal(await this.shownAuthorization(), expected);
    assert.ok(await this.headerEditor().isVisible(), 'the header is visible');
    const { sent, body } = await this.run();
    assert.equal(sent, expected);
    return body;
  }

  screenshot = (name) => this.page.screenshot({ path: `${screenshots}/graphiql-${name}.png` });

  tabNames = () => this.tabs().allTextContents();

  /** Everything that the page stores in the browser. */
  stored = () =>
    this.page.evaluate(async () =>
      JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, await indexedDB.databases()]),
    );
}

const isInViewport = async (locator, { width, height }) => {
  const box = await locator.boundingBox();
  return box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height;
};

const tests = {
  async 'the examples are valid against the schema'() {
    const schema = buildSchema(file('schema.graphql'));
    for (const { query } of examples) assert.deepEqual(validate(schema, parse(query)), [], query);
  },

  async 'the documentation is there before a key is typed'() {
    const page = await Page.open();
    await page.page.getByLabel('Show Documentation Explorer').click();
    await page.page.locator('.graphiql-doc-explorer', { hasText: 'Mutation' }).waitFor();
    await page.close();
  },

  async 'a tab without a key shows and sends the placeholder'() {
    const page = await Page.open();
    const body = await page.runAsShown(PLACEHOLDER);
    assert.equal(body.errors[0].extensions.code, 'UNAUTHENTICATED');
    await page.close();
  },

  async 'a key that is typed once is shown and sent by every tab'() {
    const page = await Page.open();
    await page.typeKey(key);
    const expected = {
      Viewer: (data) => assert.equal(data.viewer.role, 'OPERATOR'),
      CreateCustomer: (data) => assert.equal(data.createCustomer.outcome, 'CREATED'),
      UpdateCustomer: (data) => assert.equal(data.updateCustomer.customer.lastName, 'Hopper'),
      Customer: (data) => assert.equal(data.customer.email, 'grace@example.com'),
      Search: (data) => assert.equal(JSON.stringify(data).match(/grace@example\.com/g).length, 1),
      Customers: (data) => assert.equal(data.customers.totalCount, 1),
      ValidateCustomer: (data) => assert.equal(data.validateCustomer.phone, '+14155552671'),
      History: (data) => assert.ok(data.customer.history),
      Operator: (data) => assert.equal(data.operator.name, 'Demo'),
    };
    for (const [name, check] of Object.entries(expected)) {
      await page.selectTab(name);
      const { data, errors } = await page.runAsShown(`Bearer ${key}`);
      assert.equal(errors, undefined, name);
      check(data);
    }
    // The last tab has several operations: the button asks which one to run.
    await page.selectTab('CreateOperator');
    assert.equal(await page.shownAuthorization(), `Bearer ${key}`);
    await page.close();
  },

  async 'the key may be pasted as a whole header'() {
    const page = await Page.open();
    for (const pasted of [`Bearer ${key}`, `Authorization: Bearer ${key}`, `'Authorization: Bearer ${key}' `, `"${key}"`]) {
      await page.typeKey(pasted);
      assert.equal(await page.keyField().inputValue(), key);
      await page.runAsShown(`Bearer ${key}`);
    }
    await page.close();
  },

  async 'a key that is typed into the headers of one tab is shown and sent by the others'() {
    const page = await Page.open();
    await page.type(page.headerEditor(), JSON.stringify({ Authorization: `Bearer ${key}` }));
    await page.selectTab('Operator');
    assert.equal(await page.keyField().inputValue(), key);
    const { data } = await page.runAsShown(`Bearer ${key}`);
    assert.equal(data.operator.name, 'Demo');
    await page.close();
  },

  async 'a tab can have headers of its own'() {
    const page = await Page.open();
    await page.typeKey(key);
    await page.selectTab('Operator');
    await page.type(page.headerEditor(), JSON.stringify({ 'X-Test': 'one', Authorization: 'Bearer another' }));
    await page.typeKey('third');
    await page.runAsShown('Bearer another');
    await page.selectTab('Viewer');
    await page.runAsShown('Bearer third');
    await page.typeKey(key);
    await page.runAsShown(`Bearer ${key}`);
    await page.selectTab('Operator');
    await page.runAsShown('Bearer another');
    await page.close();
  },

  async 'a tab with variables shows them'() {
    for (const viewport of [WIDE, NARROW]) {
      const page = await Page.open(viewport);
      const names = await page.tabNames();
      for (const [index, { variables }] of examples.entries()) {
        await page.selectTab(names[index]);
        const text = await page.text(page.variableEditor());
        assert.deepEqual(text && JSON.parse(text), variables ? JSON.parse(JSON.stringify(variables)) : '');
        if (variables) assert.ok(await page.variableEditor().isVisible(), `the variables of ${names[index]}`);
      }
      await page.close();
    }
  },

  async 'tabs and edits survive a reload, keys do not'() {
    const page = await Page.open();
    await page.typeKey(key);
    await page.run();
    await page.selectTab('Search');
    await page.type(page.headerEditor(), JSON.stringify({ 'X-Secret': 'hidden', Authorization: `Bearer ${key}` }));
    await page.type(page.queryEditor(), 'query Renamed { viewer { role } }');
    await page.type(page.variableEditor(), '{"edited": true}');
    await page.run();
    await page.page.locator('.graphiql-tab', { hasText: 'History' }).hover();
    await page.page.locator('.graphiql-tab', { hasText: 'History' }).getByLabel('Close Tab').click();
    await page.settle();
    await page.page.getByLabel('New tab').click();
    await page.settle();
    await page.type(page.queryEditor(), 'query Added { viewer { environment } }');
    await page.selectTab('Renamed');
    const names = await page.tabNames();
    assert.equal(names.length, examples.length);

    await page.reload();
    assert.deepEqual(await page.tabNames(), names);
    assert.equal(await page.text(page.queryEditor()), 'query Renamed { viewer { role } }');
    assert.equal(await page.text(page.variableEditor()), '{"edited": true}');
    await page.selectTab('Added');
    assert.equal(await page.text(page.queryEditor()), 'query Added { viewer { environment } }');

    const stored = await page.stored();
    assert.ok(stored.includes('Renamed'), stored);
    for (const secret of [key, key.slice(0, 20), 'Bearer', 'Authorization', 'X-Secret', 'hidden']) {
      assert.ok(!stored.includes(secret), `${secret} is stored: ${stored}`);
    }
    assert.equal(await page.keyField().inputValue(), '');
    for (const name of names) {
      await page.selectTab(name);
      assert.equal(await page.shownAuthorization(), PLACEHOLDER, name);
    }
    await page.runAsShown(PLACEHOLDER);
    await page.close();
  },

  async 'the theme survives a reload'() {
    const page = await Page.open();
    const isDark = () => page.page.evaluate(() => document.body.classList.contains('graphiql-dark'));
    await page.page.getByLabel('Open settings dialog').click();
    for (const another of ['System', 'Clear data']) {
      await page.page.getByRole('button', { name: 'Dark', exact: true }).click();
      await page.reload();
      assert.ok(await isDark());
      await page.page.getByLabel('Open settings dialog').click();
      await page.page.getByRole('button', { name: another, exact: true }).click();
      await page.reload();
      assert.ok(!(await isDark()), another);
      await page.page.getByLabel('Open settings dialog').click();
    }
    await page.close();
  },

  async 'Ctrl+K searches the documentation'() {
    const page = await Page.open();
    for (const focused of [page.queryEditor(), page.keyField()]) {
      await page.reload();
      await page.page.getByLabel('Show Documentation Explorer').click();
      await focused.click();
      await page.page.keyboard.press('Control+k');
      await page.page.waitForFunction(() => document.activeElement.matches('.graphiql-doc-explorer-search input'));
      await page.page.keyboard.type('CustomerConn');
      await page.page.getByRole('option', { name: 'CustomerConnection' }).first().waitFor();
    }
    await page.close();
  },

  async 'the page works if the browser blocks its storage'() {
    const block = () =>
      Object.defineProperty(window, 'localStorage', {
        get() {
          throw new DOMException('blocked', 'SecurityError');
        },
      });
    const page = await Page.open(WIDE, 'light', (context) => context.addInitScript(block));
    assert.equal((await page.tabNames()).length, examples.length);
    await page.typeKey(key);
    assert.equal((await page.run()).body.data.viewer.role, 'OPERATOR');
    await page.close();
  },

  async 'the schema can be fetched again after a failure'() {
    let failures = 0;
    const fail = (route) => {
      failures += 1;
      return route.fulfill({ status: 503, body: '' });
    };
    const page = await Page.open(WIDE, 'light', (context) => context.route('**/introspection.json', fail, { times: 1 }));
    assert.equal(failures, 1);
    await page.page.getByLabel('Re-fetch GraphQL schema').click();
    await page.page.getByLabel('Show Documentation Explorer').click();
    await page.page.locator('.graphiql-doc-explorer', { hasText: 'Mutation' }).waitFor();
    await page.close();
  },

  async 'unchanged examples are not stored'() {
    const page = await Page.open();
    await page.typeKey(key);
    for (const name of await page.tabNames()) await page.selectTab(name);
    assert.equal(await page.page.evaluate(() => localStorage.length), 0);
    await page.reload();
    assert.equal((await page.tabNames()).length, examples.length);
    await page.close();
  },

  async 'ten tabs leave room for the editor and its button'() {
    assert.equal(examples.length, 10);
    for (const viewport of [WIDE, { width: 900, height: 700 }, NARROW]) {
      for (const colorScheme of ['light', 'dark']) {
        const page = await Page.open(viewport, colorScheme);
        await page.typeKey(key);
        for (const name of colorScheme === 'light' ? await page.tabNames() : []) {
          await page.selectTab(name);
          const tab = page.page.locator('.graphiql-tab-active');
          assert.equal(await tab.locator('.graphiql-tab-button').textContent(), name);
          for (const control of [tab, page.runButton(), page.queryEditor(), page.page.getByLabel('New tab'), page.keyField()]) {
            assert.ok(await isInViewport(control, viewport), `${control} of ${name} at ${viewport.width}`);
          }
        }
        const { width, height } = await page.queryEditor().boundingBox();
        assert.ok(width >= 200 && height >= 120, `an editor of ${width} × ${height}`);
        const scrollWidth = await page.page.evaluate(() => document.documentElement.scrollWidth);
        assert.equal(scrollWidth, viewport.width, 'the page does not scroll sideways');

        await page.selectTab('Customers');
        await page.run();
        const response = page.page.locator('.result-window', { hasText: 'totalCount' });
        await response.waitFor();
        await page.screenshot(`${viewport.width}-${colorScheme}`);
        await response.scrollIntoViewIfNeeded();
        assert.ok((await response.boundingBox()).width >= 200);
        await page.close();
      }
    }
  },
};

try {
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
    } catch (error) {
      const pages = browser.contexts().flatMap((context) => context.pages());
      await pages[0]?.screenshot({ path: `${screenshots}/graphiql-failed.png` });
      throw error;
    }
    console.log(`GraphiQL: ${name}`);
  }
} finally {
  await browser.close();
}
