// All text within an element, with its contrast as WCAG 2 defines it: [{text, contrast, look}].
root => {
  const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

  // whatever notation a colour is in, as red, green, blue from 0 to 255 and alpha from 0 to 1
  function rgba(colour) {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = pixel.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  }

  function over(above, below) {
    const alpha = above[3];
    return [0, 1, 2].map(i => alpha * above[i] + (1 - alpha) * below[i]).concat(1);
  }

  // what is behind an element's text: its own background and those of the elements around it
  function background(element) {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      layers.push(rgba(getComputedStyle(at).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255, 1]);
  }

  function opacity(element) {
    let product = 1;
    for (let at = element; at; at = at.parentElement) product *= getComputedStyle(at).opacity;
    return product;
  }

  function luminance(colour) {
    const [red, green, blue] = colour.slice(0, 3).map(value => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  }

  function measured(element, text, colour) {
    const behind = background(element);
    const ink = rgba(colour);
    const seen = over([...ink.slice(0, 3), ink[3] * opacity(element)], behind);
    const [dark, light] = [luminance(seen), luminance(behind)].sort((a, b) => a - b);
    const shown = part => part.slice(0, 3).map(Math.round).join(" ");
    return {
      text: text.trim().replace(/\s+/g, " "),
      contrast: (light + 0.05) / (dark + 0.05),
      look: `${shown(seen)} on ${shown(behind)}`,
    };
  }

  const found = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const style = getComputedStyle(element);
    const isText = walker.currentNode.data.trim() && !element.closest("script, style");
    if (isText && element.checkVisibility({ visibilityProperty: true })) {
      found.push(measured(element, walker.currentNode.data, style.color));
    }
  }
  for (const input of root.querySelectorAll("input[type=text]")) {
    if (input.value) found.push(measured(input, input.value, getComputedStyle(input).color));
    else if (input.placeholder) {
      const { color } = getComputedStyle(input, "::placeholder");
      found.push(measured(input, input.placeholder, color));
    }
  }
  return found;
}
