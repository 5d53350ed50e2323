/** Where the gateway is: pages' modules lie in its `assets/`. */
const here = import.meta.url;
export const root = import.meta.env.DEV ? new URL("/", here) : new URL("..", here);
