'use strict';
(() => {
  const page = document.documentElement;
  const all = (path, from = document) => [...from.querySelectorAll(path)];
  page.classList.add('js');

  // Tabs: the links of the navigation show one section at a time.
  const sections = all('main > section');
  const choose = () => {
    const chosen = sections.find((one) => one.id === location.hash.slice(1)) ?? sections[0];
    sections.forEach((one) => one.classList.toggle('chosen', one === chosen));
    all('nav a').forEach((link) => {
      if (link.hash === `#${chosen.id}`) link.setAttribute('aria-current', 'true');
      else link.removeAttribute('aria-current');
    });
    scrollTo(0, 0);
  };
  addEventListener('hashchange', choose);
  // Not by the browser itself, which would scroll the heading under the links.
  document.querySelector('nav').addEventListener('click', (event) => {
    if (!event.target.hash) return;
    event.preventDefault();
    history.pushState(null, '', event.target.hash);
    choose();
  });
  addEventListener('popstate', choose);
  choose();

  const theme = document.getElementById('theme');
  const isDark = () => (page.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
  theme.hidden = false;
  theme.addEventListener('click', () => { page.dataset.theme = isDark() ? 'light' : 'dark'; });

  const filter = document.getElementById('filter');
  if (filter) {
    filter.hidden = false;
    filter.querySelector('select').addEventListener('change', ({ target }) => {
      all('#images .group').forEach((group, n) => { group.hidden = target.value !== '' && target.value !== String(n); });
    });
  }

  // A click, or Enter, shows the pictures of a card at the size of the window.
  const dialog = document.getElementById('large');
  const enlarge = (card) => {
    const shown = dialog.querySelector('.large');
    const figures = all('img', card).map((image) => {
      const figure = document.createElement('figure');
      const caption = document.createElement('figcaption');
      const copy = image.cloneNode();
      copy.loading = 'eager';
      caption.textContent = image.alt.split(':')[0];
      figure.append(copy, caption);
      return figure;
    });
    shown.replaceChildren(...figures);
    dialog.querySelector('h2').textContent = all('figcaption span', card).map((one) => one.textContent).join(', ');
    dialog.showModal();
  };
  all('.card').forEach((card) => { card.tabIndex = 0; card.setAttribute('role', 'button'); });
  document.addEventListener('click', (event) => {
    const card = event.target.closest('.card');
    if (card) enlarge(card);
    else if (event.target === dialog) dialog.close();
  });
  document.addEventListener('keydown', (event) => {
    const card = event.target.closest?.('.card');
    if (card && (event.key === 'Enter' || event.key === ' ')) {
      event.preventDefault();
      enlarge(card);
    }
  });
})();
