// Creates elements without parsing markup: prompts and file names are always inserted as text.

const SVG = "http://www.w3.org/2000/svg"

function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (name === "text") element.textContent = value
        else if (typeof value === "function") element.addEventListener(name, value)
        else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value)
    }
    element.append(...children)
    return element
}

/** An HTML element; attributes whose value is a function are event listeners, `text` is its text. */
export function make(tag, attributes = {}, ...children) {
    return fill(document.createElement(tag), attributes, children)
}

/** The same in SVG. */
export function draw(tag, attributes = {}, ...children) {
    return fill(document.createElementNS(SVG, tag), attributes, children)
}

/** An image; small ones are enlarged pixelated, not blurred. */
export function picture(attributes = {}) {
    const image = make("img", { draggable: "false", ...attributes })
    image.addEventListener("load", () => image.classList.toggle("dbdpo-few-pixels", image.naturalWidth <= 128))
    return image
}
