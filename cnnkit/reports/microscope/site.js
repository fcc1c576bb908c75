"use strict";
(() => {
  const root = document.body.dataset.root;
  const make = (tag, values, ...content) => {
    const one = Object.assign(document.createElement(tag), values);
    one.append(...content);
    return one;
  };

  // Left and right arrows turn pages, and "u" goes up, except in a field.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.target.closest("input, select, textarea")) return;
    const relation = { ArrowLeft: "prev", ArrowRight: "next", u: "up" }[event.key];
    const link = relation && document.querySelector(`a[rel~="${relation}"]`);
    if (link) link.click();
    if (event.key === "/") {
      event.preventDefault();
      document.querySelector("#search").focus();
    }
  });

  // A layer's page: what the units show, and their order.
  const grid = document.querySelector("#units");
  for (const view of document.querySelectorAll("input[name=view]")) {
    const show = () => { if (view.checked) grid.dataset.view = view.value; };
    view.addEventListener("change", show);
    show();
  }
  const order = document.querySelector("#order");
  if (order) {
    const sort = () => {
      const [name, sign] = order.value.split(" ");
      const value = (item) => Number(item.dataset[name]) * Number(sign);
      grid.append(...[...grid.children].sort((a, b) => value(a) - value(b)));
    };
    order.addEventListener("change", sort);
    sort();
  }

  // An image's page: the square that covers a place, and what the network says then.
  const stage = document.querySelector("#occlusion");
  if (stage) {
    const { size, square, target, names, places } = JSON.parse(stage.dataset.places);
    const slider = document.querySelector("#place");
    const patch = stage.querySelector(".square");
    const cover = () => {
      const [top, left, probability, label] = places[Number(slider.value)];
      Object.assign(patch.style, {
        top: `${(100 * top) / size[0]}%`,
        left: `${(100 * left) / size[1]}%`,
        height: `${(100 * square[0]) / size[0]}%`,
        width: `${(100 * square[1]) / size[1]}%`,
      });
      patch.hidden = false;
      document.querySelector("#covered").textContent =
        `row ${top}, column ${left}: ${target} ${(100 * probability).toFixed(1)}%, most probable: ${names[label]}`;
    };
    slider.addEventListener("input", cover);
    cover();
  }

  // The search reads the list of units when it is first used.
  const search = document.querySelector("#search");
  const results = document.querySelector("#results");
  const card = ([address, title, words, picture, pixels]) => {
    const image = picture
      ? make("img", { src: root + picture, alt: "", loading: "lazy", className: "half patches" + (pixels ? " pixels" : "") })
      : "";
    return make("li", {}, make("a", { href: root + address }, image, make("b", {}, title), make("small", {}, words)));
  };
  const find = () => {
    const asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    results.hidden = !asked.length;
    if (results.hidden || !window.cnnkitUnits) return;
    const fits = ([, title, words]) => {
      const text = (title + " " + words).toLowerCase();
      return asked.every((word) => text.includes(word));
    };
    const found = window.cnnkitUnits.filter(fits);
    const count = found.length > 60 ? `the first 60 of ${found.length} results` : `${found.length} results`;
    results.replaceChildren(
      make("p", { className: "soft" }, count),
      make("ul", { className: "units" }, ...found.slice(0, 60).map(card)),
    );
  };
  const load = () => {
    if (document.querySelector("#index")) return;
    const script = make("script", { id: "index", src: root + "units.js" });
    script.addEventListener("load", find);
    document.head.append(script);
  };
  search.addEventListener("focus", load);
  search.addEventListener("input", () => { load(); find(); });
  if (search.value) load();
})();
