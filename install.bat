@echo off
rem Sets up MOVA Studio in this folder. Needs no administrator, no git and no Python: double-click it.
rem MOVA_UV_URL names a mirror of uv's releases. Run it again at any time: it goes on where it stopped.
setlocal EnableExtensions DisableDelayedExpansion
chcp 65001 >nul
set "UV=0.13.0"
set "WANTED=3.12"
set "URL=https://github.com/astral-sh/uv/releases/download/%UV%"
if defined MOVA_UV_URL set "URL=%MOVA_UV_URL%"
set "PYTHON="
set "SUM="
cd /d "%~dp0" || goto :unreachable
if not exist ".uv\" mkdir ".uv" || goto :readonly
>".uv\.gitignore" echo *|| goto :readonly

set "ARCH=%PROCESSOR_ARCHITECTURE%"
if defined PROCESSOR_ARCHITEW6432 set "ARCH=%PROCESSOR_ARCHITEW6432%"
if /i "%ARCH%"=="AMD64" set "SUM=088962f9e7b7bd9ea740c04c650b2a21c8928c345bd99ac24350dc924dba656c"
if not defined SUM goto :system
set "ZIP=.uv\uv-%RANDOM%%RANDOM%.zip"
".uv\uv.exe" --version 2>nul | findstr /b /c:"uv %UV%" >nul && goto :python
echo Fetching uv %UV%, which brings Python (20 MB) ...
curl -fL --retry 2 --connect-timeout 15 --progress-bar -o "%ZIP%" "%URL%/uv-x86_64-pc-windows-msvc.zip" || goto :system
certutil -hashfile "%ZIP%" SHA256 | findstr /i /c:"%SUM%" >nul || goto :forged
tar -xf "%ZIP%" -C ".uv" uv.exe || goto :system
:python
del /q "%ZIP%" 2>nul
set "UV_PYTHON_INSTALL_DIR=%CD%\.uv\python"
set "UV_CACHE_DIR=%CD%\.uv\cache"
".uv\uv.exe" python install --quiet --no-bin %WANTED% || goto :system
for /f "usebackq delims=" %%p in (`.uv\uv.exe python find --managed-python %WANTED%`) do set "PYTHON=%%p"
if defined PYTHON goto :setup
:system
del /q "%ZIP%" 2>nul
for /f "usebackq delims=" %%p in (`py -3 -c "import sys, venv, ensurepip; print(sys.executable * (sys.version_info >= (3, 11)))" 2^>nul`) do set "PYTHON=%%p"
if not defined PYTHON goto :nopython
:setup
>".uv\path" echo %PYTHON%
"%PYTHON%" launch.py setup || goto :failed
if /i not "%~1"=="--no-shortcuts" "%PYTHON%" launch.py shortcuts
echo Done. Start the studio with start.bat.
goto :end
:unreachable
echo This folder cannot be opened from here. Copy it to a drive of this computer, such as C:\MOVA.
goto :failed
:readonly
echo Cannot write in "%CD%". Move the folder to where you may write, such as C:\MOVA.
goto :failed
:forged
del /q "%ZIP%" 2>nul
echo What came is not uv %UV%: its sha256 is another one. It was deleted. Try again, or set MOVA_UV_URL to a mirror.
goto :failed
:nopython
echo Python could not be fetched, and this computer has none from 3.11 on. Check the connection and start again.
:failed
if not defined MOVA_QUIET pause
exit /b 1
:end
if not defined MOVA_QUIET pause
exit /b 0
