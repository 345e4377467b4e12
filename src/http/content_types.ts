// What a file's extension says of its type. The registry is IANA's (media types); what browsers
// need for a site, its data and its media, and nothing that nobody serves.

const UTF8 = '; charset=utf-8';

/** By type, so that a type is written once; text is UTF-8. */
const TYPES: Record<string, string> = {
  'text/html': 'html htm',
  'text/css': 'css',
  // RFC 9239.
  'text/javascript': 'js mjs cjs',
  'text/plain': 'txt text log conf ini',
  'text/markdown': 'md markdown',
  'text/csv': 'csv',
  'text/tab-separated-values': 'tsv',
  'text/calendar': 'ics',
  'text/vcard': 'vcf',
  'text/vtt': 'vtt',
  'text/xml': 'xml xsl xsd',
  'application/yaml': 'yaml yml',
  'application/json': 'json map',
  'application/ld+json': 'jsonld',
  'application/geo+json': 'geojson',
  'application/manifest+json': 'webmanifest',
  'application/x-ndjson': 'ndjson jsonl',
  'application/toml': 'toml',
  'application/xhtml+xml': 'xhtml',
  'application/rss+xml': 'rss',
  'application/atom+xml': 'atom',
  'application/wasm': 'wasm',
  'application/pdf': 'pdf',
  'application/rtf': 'rtf',
  'application/epub+zip': 'epub',
  'application/sql': 'sql',
  'application/zip': 'zip',
  'application/gzip': 'gz tgz',
  'application/zstd': 'zst',
  'application/x-bzip2': 'bz2',
  'application/x-xz': 'xz',
  'application/x-tar': 'tar',
  'application/x-7z-compressed': '7z',
  'application/vnd.ms-excel': 'xls',
  'application/vnd.ms-powerpoint': 'ppt',
  'application/msword': 'doc',
  'application/vnd.openxmlformats-officedocument.wordprocessingml.document': 'docx',
  'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet': 'xlsx',
  'application/vnd.openxmlformats-officedocument.presentationml.presentation': 'pptx',
  'application/vnd.oasis.opendocument.text': 'odt',
  'application/vnd.oasis.opendocument.spreadsheet': 'ods',
  'application/vnd.oasis.opendocument.presentation': 'odp',
  'application/vnd.android.package-archive': 'apk',
  'application/vnd.apple.mpegurl': 'm3u8',
  'application/dash+xml': 'mpd',
  'image/apng': 'apng',
  'image/avif': 'avif',
  'image/bmp': 'bmp',
  'image/gif': 'gif',
  'image/heic': 'heic',
  'image/jpeg': 'jpg jpeg jpe',
  'image/jxl': 'jxl',
  'image/png': 'png',
  'image/svg+xml': 'svg',
  'image/tiff': 'tif tiff',
  'image/vnd.microsoft.icon': 'ico',
  'image/webp': 'webp',
  'audio/aac': 'aac',
  'audio/flac': 'flac',
  'audio/midi': 'mid midi',
  'audio/mp4': 'm4a',
  'audio/mpeg': 'mp3',
  'audio/ogg': 'oga ogg opus',
  'audio/wav': 'wav',
  'video/mp2t': 'ts',
  'video/mp4': 'mp4 m4v',
  'video/mpeg': 'mpg mpeg',
  'video/ogg': 'ogv',
  'video/quicktime': 'mov',
  'video/webm': 'webm',
  'video/x-matroska': 'mkv',
  'font/collection': 'ttc',
  'font/otf': 'otf',
  'font/ttf': 'ttf',
  'font/woff': 'woff',
  'font/woff2': 'woff2',
  'model/gltf+json': 'gltf',
  'model/gltf-binary': 'glb',
};

const IS_TEXT = /^text\/|\+xml$|^application\/(toml|sql|yaml)$/;

const byExtension = new Map<string, string>();
for (const [type, extensions] of Object.entries(TYPES))
  for (const extension of extensions.split(' '))
    if (extension !== '') byExtension.set(extension, IS_TEXT.test(type) ? type + UTF8 : type);

/** What is known of nothing (RFC 9110 section 8.3). */
export const UNKNOWN_TYPE = 'application/octet-stream';

/** Of a file's name, in any case; '' without one, and of a name that begins with its only dot. */
export function extensionOf(name: string): string {
  const dot = name.lastIndexOf('.');
  return dot <= name.lastIndexOf('/') + 1 ? '' : name.slice(dot + 1).toLowerCase();
}

/** The Content-Type for an extension; undefined for one that is not in the table. */
export function contentType(extension: string): string | undefined {
  return byExtension.get(extension);
}
