/** Add a style to the page, once per id. */
export function addStyle(id, css) {
    if (document.getElementById(id)) return
    const style = document.createElement("style")
    style.id = id
    style.textContent = css
    document.head.append(style)
}
