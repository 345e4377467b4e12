{
  'variables': {
    # A build under a sanitizer: node-gyp rebuild -- -Dsanitize=address (or undefined, or both with
    # a comma). It is loaded with LD_PRELOAD="$(gcc -print-file-name=libasan.so)" before node.
    'sanitize%': '',
    # 1: without what only this machine's kernel has. ML_PORTABLE=1 npm run build sets it.
    'portable%': 0,
  },
  'targets': [
    {
      'target_name': 'multiloop',
      'sources': [
        # The core is listed by the shell so that a new file in it needs no edit here.
        '<!@(node -p "[\'native/core\', \'native/core/backend\'].filter((d) => fs.existsSync(d)).flatMap((d) => fs.readdirSync(d).filter((f) => f.endsWith(\'.cc\')).map((f) => d + \'/\' + f)).sort().join(\' \')")',
        # The binding is one translation unit: this file includes the others, because the headers
        # of node-addon-api cost more than two seconds in every unit that includes them.
        'native/binding/addon.cc',
      ],
      'include_dirs': ['native'],
      'defines': [
        'NAPI_VERSION=8',
        'NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS',
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
      ],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
      'cflags_cc': [
        '-std=c++20',
        '-fvisibility=hidden',
        '-Wall',
        '-Wextra',
        '-Wshadow',
        '-Wconversion',
        # A system directory, so that these warnings speak of our code only. The path is relative
        # to build/, where the compiler runs: a clone may live below a folder with a space.
        '-isystem',
        '<!(node -p "path.relative(\'build\', path.dirname(require.resolve(\'node-addon-api/package.json\')))")',
      ],
      'conditions': [
        ['OS!="mac"', {
          'ldflags': [
            # The code stays mapped after the last environment is gone: threads of ours and of the
            # kernel's notification machinery may still be inside it.
            '-Wl,-z,nodelete',
            '-static-libstdc++',
            '-static-libgcc',
            # Node has a C++ library of its own: ours stays private to the addon.
            '-Wl,--exclude-libs,ALL',
          ],
        }],
        ['OS=="linux"', {
          # dlsym lives in a library of its own before glibc 2.34.
          'libraries': ['-ldl', '-pthread'],
        }],
        ['portable==1', {
          'defines': ['ML_PORTABLE'],
        }],
        ['sanitize!=""', {
          'cflags': ['-fsanitize=<(sanitize)', '-fno-omit-frame-pointer', '-g', '-O1'],
          'cflags!': ['-O3'],
          'ldflags': ['-fsanitize=<(sanitize)'],
        }],
      ],
    },
  ],
}
