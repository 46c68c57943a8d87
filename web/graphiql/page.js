'use strict';

// GraphiQL with one addition: a field for the API key above the tabs. GraphiQL sends the headers that its Headers editor
// shows, and the field writes the key into that editor. The tabs are kept in localStorage, without their headers.

const { createElement, useEffect, useRef, useState } = React;
const { useEditorContext, useExecutionContext } = GraphiQL.React;

const PLACEHOLDER = 'YOUR_KEY';
const TABS = 'vivamo-graphiql-tabs';
const THEME = 'graphiql:theme';

/** The text of the Headers editor with this key. */
const headersWith = (key, headers = {}) => JSON.stringify({ ...headers, Authorization: `Bearer ${key}` }, null, 2);

const parseHeaders = (text) => {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
};

/** The key in a pasted text, which may be a whole header: `Authorization: Bearer KEY`, perhaps in quotes. */
const keyInPasted = (text) => /[^\s'"]*(?=['"]*\s*$)/.exec(text)[0];

/** The key in the text of a Headers editor, or undefined. */
const keyIn = (text) => /^Bearer (\S+)$/.exec(parseHeaders(text).Authorization)?.[1];

/** The result of `use(localStorage)`. Null if the browser blocks the storage, or if the storage is full. */
const tryStorage = (use) => {
  try {
    return use(localStorage);
  } catch {
    return null;
  }
};

const contentOf = ({ query, variables }) => ({ query: query ?? '', variables: variables ?? '' });

const exampleTabs = examples.map(({ query, variables }) =>
  contentOf({ query, variables: variables && JSON.stringify(variables, null, 2) }),
);

/** The tabs of the last visit, or the examples. */
const loadTabs = () => {
  try {
    const { tabs, active } = JSON.parse(tryStorage((stored) => stored.getItem(TABS)));
    if (tabs.length > 0) return { tabs: tabs.map(contentOf), active: tabs[active] ? active : 0 };
  } catch {
    // No tabs were saved, or another version of the page saved the tabs in another form.
  }
  return { tabs: exampleTabs, active: 0 };
};

const saveTabs = ({ tabs, activeTabIndex }) => {
  const contents = tabs.map(contentOf);
  // Unchanged examples are not saved, so that a new version of the page shows its own examples.
  if (JSON.stringify(contents) === JSON.stringify(exampleTabs)) {
    tryStorage((stored) => stored.removeItem(TABS));
  } else {
    tryStorage((stored) => stored.setItem(TABS, JSON.stringify({ tabs: contents, active: activeTabIndex })));
  }
};

const loaded = loadTabs();

// GraphiQL's own data, including its request history with headers, is kept only in memory, except the theme. `saveTabs`
// stores the queries and variables of the tabs.
const memory = new Map([
  ['graphiql:secondaryEditorFlex', '1.2'],
  [THEME, tryStorage((stored) => stored.getItem(THEME))],
]);
const storage = {
  get length() {
    return memory.size;
  },
  getItem: (name) => memory.get(name) ?? null,
  setItem: (name, value) => {
    memory.set(name, value);
    if (name === THEME) tryStorage((stored) => stored.setItem(name, value));
  },
  removeItem: (name) => {
    memory.delete(name);
    if (name === THEME) tryStorage((stored) => stored.removeItem(name));
  },
  clear: () => {
    memory.clear();
    for (const name of [TABS, THEME]) tryStorage((stored) => stored.removeItem(name));
  },
};

// Outside macOS, GraphiQL shows "Ctrl K" for its search, but its handler expects the Meta key.
document.addEventListener('keydown', (event) => {
  const isShortcut = event.ctrlKey && event.key.toLowerCase() === 'k' && !navigator.platform.startsWith('Mac');
  if (!isShortcut || !document.querySelector('.graphiql-doc-explorer-search')) return;
  event.preventDefault();
  event.target.dispatchEvent(new KeyboardEvent('keydown', { key: 'k', metaKey: true, bubbles: true }));
});

function KeyField() {
  const { activeTabIndex, changeTab, headerEditor, queryEditor, tabs, variableEditor } = useEditorContext({ nonNull: true });
  const { isFetching } = useExecutionContext({ nonNull: true });
  const [key, setKey] = useState('');
  const [isRestored, setIsRestored] = useState(false);
  const written = useRef(new Set([PLACEHOLDER]));
  const tab = tabs[activeTabIndex];

  useEffect(() => {
    if (!isRestored && queryEditor && variableEditor && headerEditor) {
      // Wraps lines, because a key is longer than the editor is wide.
      headerEditor.setOption('lineWrapping', true);
      changeTab(loaded.active);
      setIsRestored(true);
    }
  }, [isRestored, queryEditor, variableEditor, headerEditor]);

  // A key that was typed into a Headers editor is copied to the key field when the user leaves or runs the tab, unless the
  // key field has a key.
  useEffect(() => {
    const typed = tabs.map(({ headers }) => keyIn(headers)).find((key) => key && !written.current.has(key));
    if (!key && typed) setKey(typed);
  }, [activeTabIndex, isFetching]);

  // Writes the key of the key field into the Headers editor, unless another key was typed there.
  useEffect(() => {
    if (!headerEditor) return;
    const next = key || PLACEHOLDER;
    written.current.add(next);
    const headers = headerEditor.getValue();
    const shown = keyIn(headers);
    if (shown !== next && written.current.has(shown)) headerEditor.setValue(headersWith(next, parseHeaders(headers)));
  }, [key, tab.id, headerEditor, isRestored]);

  useEffect(() => {
    document.querySelector('.graphiql-tab-active')?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    // On a narrow page, only one of the editors for variables and headers is visible.
    const tool = (name) => document.querySelector(`.graphiql-editor-tools [data-name="${name}"]`);
    const areToolsOpen = ['variables', 'headers'].some((name) => tool(name).classList.contains('active'));
    if (areToolsOpen) tool(tab.variables ? 'variables' : 'headers').click();
  }, [tab.id]);

  return createElement(
    'label',
    { className: 'key-field' },
    'API key',
    createElement('input', {
      value: key,
      onChange: (event) => setKey(keyInPasted(event.target.value)),
      placeholder: 'vivamo_sandbox_…',
      autoComplete: 'off',
      spellCheck: false,
    }),
    createElement('span', { className: 'key-hint' }, 'Tabs send this key unless you type another one into Headers. The key is not stored.'),
  );
}

// The documentation is available before a key is typed, because the schema is public.
const send = GraphiQL.createFetcher({ url: '/graphql' });
const introspect = async () => {
  const response = await fetch('/graphiql/introspection.json');
  if (!response.ok) throw new Error(`The schema cannot be read: status ${response.status}`);
  return response.json();
};
const fetcher = (request, options) =>
  request.operationName === 'IntrospectionQuery' ? introspect() : send(request, options);

const headers = headersWith(PLACEHOLDER);

ReactDOM.createRoot(document.getElementById('graphiql')).render(
  createElement(
    GraphiQL,
    {
      fetcher,
      storage,
      defaultTabs: loaded.tabs.map((tab) => ({ ...tab, headers })),
      defaultHeaders: headers,
      defaultQuery: '',
      defaultEditorToolsVisibility: 'headers',
      shouldPersistHeaders: false,
      inputValueDeprecation: true,
      onTabChange: saveTabs,
    },
    createElement(GraphiQL.Logo, null, createElement(KeyField)),
  ),
);
