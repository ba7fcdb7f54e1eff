// Reads a body of `application/x-www-form-urlencoded` or JSON.

/** The whole body as text. */
export async function text(request) {
    const pieces = [];
    for await (const piece of request) {
        pieces.push(piece);
    }
    return Buffer.concat(pieces).toString('utf8');
}

/** The fields of a form. */
export async function urlencoded(request) {
    return new URLSearchParams(await text(request));
}
